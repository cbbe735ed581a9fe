"""Channels of TIFF files that Pillow cannot read: more than four, of 16 bits or floating point, in planes or pages."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from convlora.data.extras import need
from convlora.data.pixels.decoding import image_errors, require_allowed_size
from convlora.data.settings import MOST_CHANNELS, ImageLimits
from convlora.errors import ImageError

_MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_ORIENTATION, _NODATA, _DESCRIPTION = 274, 42113, 270
_WHITE_IS_ZERO, _PALETTE = 0, 3
_MOST_PAGES = 64  # looked at: overviews and channels; a stack of more is no image


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFF files do.

    Raises:
        ImageError: it cannot be opened.
    """
    with image_errors(path), path.open("rb") as stream:
        return stream.read(4) in _MAGICS


def tiff_size(path: Path, limits: ImageLimits) -> tuple[int, int]:
    """Height and width in pixels of the upright image, from the header.

    Raises:
        ImageError, SettingsError: as `read_tiff`.
    """
    with _channel_pages(path, limits) as pages:
        height, width = pages[0].imagelength, pages[0].imagewidth
        return (width, height) if _orientation(pages[0]) in (5, 6, 7, 8) else (height, width)


def read_tiff(path: Path, limits: ImageLimits) -> np.ndarray:
    """The samples of a TIFF file, upright: channels in one page, contiguous or in planes, or one page a channel.

    What GDAL's tag of no data names becomes NaN, and the values float32.

    Returns:
        (H, W, C), as stored.

    Raises:
        ImageError: not readable, beyond the limits, damaged, or a stack of images.
        SettingsError: tifffile is missing.
    """
    with _channel_pages(path, limits) as pages:
        for page in pages:
            _require_whole(path, page)
        arrays = [page.asarray(maxworkers=1) for page in pages]
        if len(arrays) > 1:
            values = np.stack(arrays, -1)
        else:
            values = np.moveaxis(arrays[0], 0, -1) if pages[0].axes == "SYX" else arrays[0]
        nodata = _nodata(pages[0])
        if nodata is not None and (missing := values == nodata).any():
            values = np.where(missing, np.float32(np.nan), values.astype(np.float32))
        return _upright(values, _orientation(pages[0]))


@contextlib.contextmanager
def _channel_pages(path: Path, limits: ImageLimits) -> Iterator[list[Any]]:
    """The pages that hold the channels of one image, of which the sizes were checked."""
    tifffile = need("tifffile", "tiff", "reading the channels of TIFF files")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is said by our error
    with image_errors(path, "an uncompressed TIFF or .npy"), tifffile.TiffFile(path) as file:
        pages = []
        for number, page in enumerate(file.pages):
            if number == _MOST_PAGES:
                raise ImageError(f"{path}: holds more than {_MOST_PAGES} pages; split it into one file an image.")
            if not number:
                require_allowed_size(path, page.imagelength, page.imagewidth, limits)
            if not page.subfiletype & (_REDUCED | _MASK):
                pages.append(page)
        _require_one_image(path, file, pages)
        yield pages


def _require_one_image(path: Path, file: Any, pages: list[Any]) -> None:
    first = pages[0] if pages else None
    if first is None or first.dtype is None or first.axes not in ("YX", "YXS", "SYX"):
        axes = f"axes {first.axes}" if first is not None else "no page"
        raise ImageError(f"{path}: a TIFF with {axes} is no image of channels; save pixels as rows, columns, samples.")
    if any((page.shape, page.dtype, page.axes) != (first.shape, first.dtype, first.axes) for page in pages):
        raise ImageError(f"{path}: its {len(pages)} pages differ in size or type; split it into one file each.")
    if first.photometric in (_WHITE_IS_ZERO, _PALETTE):
        raise ImageError(f"{path}: a TIFF of colour kind {first.photometric.name} stores no channels; save it as RGB.")
    if first.samplesperpixel > MOST_CHANNELS:
        raise ImageError(f"{path}: has {first.samplesperpixel} channels; at most {MOST_CHANNELS} can be used.")
    along = _stacked(file)
    if len(pages) > 1 and (along or first.axes != "YX" or len(pages) > MOST_CHANNELS):
        what = f" along {along}" if along else ""
        raise ImageError(f"{path}: holds a stack of {len(pages)} images{what}; split it into one file an image.")


def _stacked(file: Any) -> str:
    """Axes other than channels that the pages go along, as ImageJ and OME write them; "" if the file names none."""
    first = file.pages[0]
    text = str(first.tags[_DESCRIPTION].value)[:100_000] if _DESCRIPTION in first.tags else ""
    # found by pattern: a parser of XML could be made to expand entities
    found = re.findall(r'\b(Size[ZT]="|slices=|frames=)(\d+)', text)
    return ", ".join(sorted({name.strip('="') for name, count in found if int(count[:9]) > 1}))


def _require_whole(path: Path, page: Any) -> None:
    """Refuse a file that lacks parts of its pixels, which tifffile would fill with zeros."""
    size = page.parent.filehandle.size
    lengths = page.databytecounts
    ends = [offset + length for offset, length in zip(page.dataoffsets, lengths, strict=True)]
    if len(ends) < int(np.prod(page.chunked)) or min(lengths, default=0) < 1 or max(ends) > size:
        raise ImageError(f"{path}: damaged; a part of its pixels is not in the file. Get the image again.")


def _orientation(page: Any) -> int:
    return int(page.tags[_ORIENTATION].value) if _ORIENTATION in page.tags else 1


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Turn (H, W, …) as the tag of orientation says."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values


def _nodata(page: Any) -> float | None:
    if _NODATA not in page.tags:
        return None
    try:
        return float(str(page.tags[_NODATA].value).strip("\x00 "))
    except ValueError:
        return None
