"""One page of a TIFF file: what its samples mean, and its pixels upright."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convlora.data.extras import need
from convlora.errors import ImageError

_CODECS = {5: "LZW", 8: "deflate", 32946: "deflate", 32773: "PackBits", 7: "JPEG", 50000: "ZSTD"} | {
    34925: "LZMA",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_JPEG = 7


@dataclass(frozen=True)
class PageKind:
    """What `page_pixels` gives of pages like this one."""

    channels: int
    dtype: str
    bits: int
    palette: tuple[tuple[int, int, int], ...] | None
    mask_problem: str | None


def page_kind(path: Path, page: Any) -> PageKind:
    """The kind of a page, by its tags.

    Raises:
        ImageError: Its pixels could be read wrongly, or not at all.
    """
    dtype = np.dtype(page.dtype) if page.dtype is not None else None
    photometric, samples = int(page.photometric), int(page.samplesperpixel)
    problems = {
        f"values of type {dtype}": dtype is None or dtype.kind not in "biuf" or dtype.itemsize > 8,
        f"colours of kind {page.photometric!s}": photometric not in (0, 1, 2, 3) and not _jpeg_colours(page),
        f"compression {page.compression!s}": int(page.compression) not in (1, *_CODECS),
        "a depth of several pixels": int(page.imagedepth) != 1,
        "a palette of several channels": photometric == _PALETTE and samples != 1,
        "negative light": photometric == _WHITE_IS_ZERO and (dtype is None or dtype.kind not in "bu"),
    }
    if problem := next((text for text, there in problems.items() if there), None):
        raise ImageError(f"{path}: {problem} in a TIFF cannot be read; save it as uncompressed grey or RGB.")
    if int(page.compression) != 1:
        need("imagecodecs", "tiff", f"reading TIFF compressed by {_CODECS[int(page.compression)]}")
    alpha = _has_alpha(page)
    reasons = {
        "stores white as 0": photometric == _WHITE_IS_ZERO,
        "has an alpha channel": alpha,
        "is compressed with loss": int(page.compression) == _JPEG,
    }
    bits = page.bitspersample
    return PageKind(
        channels=samples - alpha,
        dtype="float32" if dtype == np.float16 else np.dtype(dtype).newbyteorder("=").name,
        bits=max(bits) if isinstance(bits, tuple) else int(bits),
        palette=_palette(path, page) if photometric == _PALETTE else None,
        mask_problem=next((text for text, there in reasons.items() if there), None),
    )


def upright_size(page: Any) -> tuple[int, int]:
    """(H, W) as `page_pixels` gives it."""
    height, width = int(page.imagelength), int(page.imagewidth)
    return (width, height) if _orientation(page) >= 5 else (height, width)


def page_pixels(path: Path, page: Any) -> np.ndarray:
    """Decode a page: (H, W, C), upright, white at the largest value, alpha composited on black.

    Raises:
        ImageError: A part of the pixels is not in the file.
    """
    _refuse_holes(path, page)
    values = page.asarray(squeeze=False, maxworkers=1)  # separate planes, depth, rows, columns, samples of a pixel
    pixels = values[:, 0, :, :, 0].transpose(1, 2, 0) if values.shape[0] > 1 else values[0, 0]
    return finished_pixels(page, pixels)


def finished_pixels(page: Any, pixels: np.ndarray) -> np.ndarray:
    """Values (H, W, samples) as the file stores them, as `page_pixels` gives them."""
    pixels = pixels.astype(np.float32 if pixels.dtype == np.float16 else pixels.dtype.newbyteorder("="), copy=False)
    if int(page.photometric) == _WHITE_IS_ZERO:
        bits = page.bitspersample
        pixels = ~pixels if pixels.dtype == bool else pixels.dtype.type(2 ** int(bits) - 1) - pixels
    if _has_alpha(page):
        pixels = _on_black(pixels, premultiplied=int(page.extrasamples[0]) == 1)
    return np.ascontiguousarray(_turned(pixels, _orientation(page)))


def _jpeg_colours(page: Any) -> bool:
    """Whether these are the colours of JPEG, which become RGB in decoding."""
    return int(page.photometric) == _YCBCR and int(page.compression) == _JPEG


def _has_alpha(page: Any) -> bool:
    """Whether the last sample of a pixel is its opacity."""
    extra = tuple(page.extrasamples or ())
    return len(extra) == 1 and int(extra[0]) in (1, 2) and int(page.samplesperpixel) in (2, 4)


def _on_black(pixels: np.ndarray, *, premultiplied: bool) -> np.ndarray:
    colours, alpha = pixels[..., :-1], pixels[..., -1:]
    if premultiplied:
        return colours
    top = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else 1
    if (alpha == top).all():
        return colours
    mixed = colours.astype(np.float64) * alpha / top
    return (np.rint(mixed) if pixels.dtype.kind in "iu" else mixed).astype(pixels.dtype)


def _palette(path: Path, page: Any) -> tuple[tuple[int, int, int], ...]:
    """Colours by value, from three rows of 16 bits."""
    table = np.asarray(page.colormap)
    if table.ndim != 2 or len(table) != 3 or table.shape[1] > 65536 or np.dtype(page.dtype).kind not in "bu":
        raise ImageError(f"{path}: its palette cannot be read; save it as grey or RGB.")
    if (table < 256).all():  # some programs write 8 bits
        table = table * 257
    return tuple((int(r), int(g), int(b)) for r, g, b in (table >> 8).T)


def _orientation(page: Any) -> int:
    tag = page.tags.get(274)
    value = int(tag.value) if tag is not None and isinstance(tag.value, int) else 1
    return value if 1 <= value <= 8 else 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
        orientation = {5: 1, 6: 2, 7: 3, 8: 4}[orientation]
    rows = -1 if orientation in (3, 4) else 1
    columns = -1 if orientation in (2, 3) else 1
    return pixels[::rows, ::columns]


def _refuse_holes(path: Path, page: Any) -> None:
    """Refuse what the library would fill with zeros: strips or tiles that are not, or not wholly, in the file."""
    expected = math.prod(page.chunked) if not page.is_contiguous else 1
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    size = page.parent.filehandle.size
    whole = all(count > 0 and offset > 0 and offset + count <= size for offset, count in places)
    if page.is_contiguous and places:
        whole = whole and places[0][0] + math.prod(page.shaped) * page.dtype.itemsize <= size
    if len(places) < expected or not whole:
        raise ImageError(f"{path}: damaged; a part of its pixels is not in the file. Get the image again.")
