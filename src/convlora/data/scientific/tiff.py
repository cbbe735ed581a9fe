"""TIFF files beyond plain pictures: several pages, planes and channels (OME-TIFF, ImageJ), 16 bits, floating point."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convlora.data.extras import need
from convlora.data.pixels.decoding import require_allowed_size
from convlora.data.scientific.geometry import Geometry
from convlora.data.scientific.stacks import quiet, reading, sampled
from convlora.data.scientific.tiff_pages import finished_pixels, page_kind, page_pixels, upright_size
from convlora.data.settings import ImageLimits
from convlora.errors import ImageError

_MOST_PAGES = 100_000
_MOST_CHANNELS = 1024
_SLIDE_EXTRAS = {"Thumbnail", "Label", "Macro", "Map"}  # what scanners store beside the slide


@dataclass(frozen=True)
class TiffStack:
    """See `convlora.data.scientific.stacks.Stack`."""

    path: Path
    count: int
    size: tuple[int, int]
    channels: int
    dtype: str
    bits: int
    rgb: tuple[int, int, int] | None
    palette: tuple[tuple[int, int, int], ...] | None = field(repr=False)
    mask_problem: str | None
    unit: str
    frames: tuple[tuple[int, ...], ...] = field(repr=False, compare=False)
    """Of each picture, where in the file the tags of the pages are that hold its channels."""
    block: int | None = field(default=None, repr=False, compare=False)
    """Where the pixels of all pages begin, if only a description divides them; then `frames` numbers them."""

    def page(self, index: int, limits: ImageLimits) -> np.ndarray:
        """Values of one picture (H, W, C)."""
        require_allowed_size(self.path, *self.size, limits)
        with reading(self.path, "TIFF"), _opened(self.path) as file:
            planes = [self._plane(file, place) for place in self.frames[index]]
        pixels = np.concatenate(planes, axis=-1) if len(planes) > 1 else planes[0]
        if pixels.shape != (*self.size, self.channels) or pixels.dtype.name != self.dtype:
            raise _several_sizes(self.path)
        return pixels

    def _plane(self, file: Any, place: int) -> np.ndarray:
        if self.block is None:
            file.filehandle.seek(place)
            page = need("tifffile", "tiff", "reading TIFF").TiffPage(file, 1)
            if upright_size(page) != self.size:
                raise _several_sizes(self.path)
            return page_pixels(self.path, page)
        first = file.pages[0]
        shape = first.imagelength, first.imagewidth, first.samplesperpixel
        dtype = np.dtype(file.byteorder + np.dtype(first.dtype).char)
        file.filehandle.seek(self.block + place * math.prod(shape) * dtype.itemsize)
        content = file.filehandle.read(math.prod(shape) * dtype.itemsize)
        return finished_pixels(first, np.frombuffer(content, dtype).reshape(shape))

    def sample(self, limits: ImageLimits) -> np.ndarray:
        """Values of the whole (n, C)."""
        return sampled(self, limits)

    def in_hounsfield_units(self, limits: ImageLimits) -> bool:
        """No: TIFF does not say."""
        return False

    def geometry(self, index: int) -> Geometry | None:
        """None: TIFF without geo tags does not say."""
        return None


def open_tiff(path: Path, limits: ImageLimits, *, as_mask: bool = False) -> TiffStack:
    """Read the headers of a TIFF file; of a pyramid the full size counts.

    Pictures are, in the order of the file's axes, the positions along T, Z and axes without a meaning; C and the
    samples of a pixel are channels.

    Args:
        path: The file.
        limits: Of each picture.
        as_mask: Take C for pages too: a mask has no channels, but some programs call its slices so.

    Raises:
        ImageError: Not readable, beyond the limits, of several series, or of parts in other files.
        SettingsError: A library is not installed.
    """
    with reading(path, "TIFF"), _opened(path) as file:
        series = _only_series(path, file)
        page = series.keyframe
        require_allowed_size(path, int(page.imagelength), int(page.imagewidth), limits)
        kind, frames = page_kind(path, page), _frames(path, series, pages="C" if as_mask else "")
        block, places = _places(path, series, sum(map(len, frames)))
        channels = kind.channels * len(frames[0])
        if not 1 <= channels <= _MOST_CHANNELS:
            raise ImageError(f"{path}: {channels} channels are too many; split the file.")
        return TiffStack(
            path=path,
            count=len(frames),
            size=upright_size(page),
            channels=channels,
            dtype=kind.dtype,
            bits=kind.bits,
            rgb={1: (0, 0, 0), 3: (0, 1, 2)}.get(channels),
            palette=kind.palette if channels == 1 else None,
            mask_problem=kind.mask_problem,
            unit="page" if len(frames) > 1 else "",
            frames=tuple(tuple(places[number] for number in numbers) for numbers in frames),
            block=block,
        )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A file of tifffile, whose parts in other files are not looked for."""
    tifffile = need("tifffile", "tiff", "reading TIFF stacks and images of more than 8 bits")
    quiet("tifffile")
    with path.open("rb") as stream, tifffile.TiffFile(stream, name=path.name, _multifile=False) as file:
        yield file


def _only_series(path: Path, file: Any) -> Any:
    """The first series of a file that holds no other images."""
    _refuse_hostile_description(path, file.pages[0].description)
    try:
        series = file.series
    except RuntimeError as error:  # "incompatible keyframe"
        raise _several_sizes(path) from error
    others = [one.name for one in series[1:] if one.name not in _SLIDE_EXTRAS]
    if not series or others:
        names = ", ".join(f"{one.name or 'unnamed'} {'x'.join(map(str, one.shape))}" for one in series[:4])
        raise ImageError(
            f"{path}: holds {len(series)} series of images ({names}), not one; save each as a file of its own."
        )
    return series[0]


def _frames(path: Path, series: Any, *, pages: str) -> tuple[tuple[int, ...], ...]:
    """Of each picture, the numbers of the pages that hold its channels; `pages` names axes along which are none."""
    axes, shape, page = series.axes, series.shape, series.keyframe
    outer = [(axis, length) for axis, length in zip(axes, shape, strict=True) if axis not in "YXS"]
    inner = [(axis, length) for axis, length in zip(axes, shape, strict=True) if axis in "YXS" and length > 1]
    wanted = [("Y", page.imagelength), ("X", page.imagewidth), ("S", page.samplesperpixel)]
    total = math.prod(length for _, length in outer)
    if sorted(inner) != sorted((axis, length) for axis, length in wanted if length > 1) or total > _MOST_PAGES:
        raise ImageError(
            f"{path}: axes {axes} of {'x'.join(map(str, shape))} are not pages of {page.imagelength} x "
            f"{page.imagewidth} pixels with {page.samplesperpixel} samples, at most {_MOST_PAGES}; save it as such."
        )
    order = np.arange(total).reshape([length for _, length in outer])
    channel_axes = [i for i, (axis, _) in enumerate(outer) if axis == "C" and axis not in pages]
    order = np.moveaxis(order, channel_axes, range(-len(channel_axes), 0))
    planes = math.prod(outer[i][1] for i in channel_axes)
    return tuple(tuple(row) for row in order.reshape(-1, planes).tolist())


def _places(path: Path, series: Any, total: int) -> tuple[int | None, Sequence[int]]:
    """Where the pixels of all pages begin, if they are one block, and of each page its number or its tags' place."""
    try:
        offsets = [page.offset for page in series.pages if page is not None]
    except RuntimeError as error:
        raise _several_sizes(path) from error
    if len(offsets) == total:
        return None, offsets
    if len(offsets) == 1 and series.dataoffset is not None:
        return int(series.dataoffset), range(total)
    raise ImageError(
        f"{path}: has {len(offsets)} of the {total} pages that its description tells of; a set of several files, or a "
        "damaged one. Save it whole, in one file."
    )


def _several_sizes(path: Path) -> ImageError:
    return ImageError(f"{path}: its pages are of several sizes or types; save each as a file of its own.")


def _refuse_hostile_description(path: Path, text: str) -> None:
    """Refuse XML that grows when it is read, and numbers of planes that no file holds."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ImageError(f"{path}: its description declares entities, which OME-XML does not; save the file again.")
    if len(set(re.findall(r"<(?:\w+:)?UUID\b[^>]*>([^<]*)<", text))) > 1:
        raise ImageError(f"{path}: its description tells of pages in other files; save all of them in one file.")
    for pixels in re.findall(r"<(?:\w+:)?Pixels\b[^>]*>", text)[:_MOST_PAGES]:
        sizes = [int(number[:12]) for number in re.findall(r'\bSize[CZT]\s*=\s*["\']\s*(\d+)', pixels)]
        if math.prod(sizes) > _MOST_PAGES:
            raise ImageError(f"{path}: its description tells of {math.prod(sizes)} planes, more than {_MOST_PAGES}.")
