"""Image arrays in .npy files: the header is looked at before anything is read, and nothing is ever unpickled."""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO

import numpy as np

from convlora.data.pixels.decoding import image_errors, require_allowed_size
from convlora.data.settings import MOST_CHANNELS, ImageLimits
from convlora.errors import ImageError

_MAGIC = b"\x93NUMPY"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def is_array(path: Path) -> bool:
    """Whether a file begins as .npy files do.

    Raises:
        ImageError: it cannot be opened.
    """
    with image_errors(path, "float32 .npy"), path.open("rb") as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


def array_size(path: Path, limits: ImageLimits, channels: int | None) -> tuple[int, int]:
    """Height and width in pixels, from the header.

    Raises:
        ImageError: as `read_array`.
    """
    with image_errors(path, "float32 .npy"), path.open("rb") as stream:
        shape, _, _ = _header(path, stream)
        height, width = _channels_last(path, shape, channels)[:2]
        require_allowed_size(path, height, width, limits)
        return height, width


def read_array(path: Path, limits: ImageLimits, channels: int | None) -> np.ndarray:
    """The array of an image, real numbers of any type.

    Args:
        path: A .npy file that holds (H, W), (H, W, C) or (C, H, W).
        limits: Checked before the values are read.
        channels: How many are wanted, which tells the layouts apart; None takes the axis of at most 16.

    Returns:
        (H, W, C).

    Raises:
        ImageError: not readable, beyond the limits, not an image, or its layout is not sure.
    """
    with image_errors(path, "float32 .npy"), path.open("rb") as stream:
        shape, fortran, dtype = _header(path, stream)
        height, width, count = _channels_last(path, shape, channels)
        require_allowed_size(path, height, width, limits)
        size, there = math.prod(shape), path.stat().st_size - stream.tell()
        if there < size * dtype.itemsize:
            raise ImageError(f"{path}: damaged; {size * dtype.itemsize - there} bytes of its values are missing.")
        flat = np.fromfile(stream, dtype, size)
    values = flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    values = values[..., None] if values.ndim == 2 else values
    return values if values.shape == (height, width, count) else np.moveaxis(values, 0, -1)


def _header(path: Path, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of numbers; the stream stands at the first value then."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ImageError(f"{path}: version {version} of .npy is for other things than arrays of numbers.")
    shape, fortran, dtype = _HEADERS[version](stream)
    if dtype.hasobject or dtype.kind not in "buif":
        raise ImageError(f"{path}: holds {dtype}, which are no channels. Save real numbers, such as float32.")
    return shape, fortran, dtype


def _channels_last(path: Path, shape: tuple[int, ...], channels: int | None) -> tuple[int, int, int]:
    """(H, W, C) of an array of this shape."""
    if len(shape) == 2:
        return shape[0], shape[1], 1
    layouts = {"(C, H, W)": (shape[1], shape[2], shape[0]), "(H, W, C)": shape} if len(shape) == 3 else {}
    found = [(h, w, c) for h, w, c in layouts.values() if 1 <= c <= MOST_CHANNELS]
    wanted = [size for size in found if size[2] == channels] or found
    if len(wanted) == 1:
        return wanted[0]
    if wanted:
        raise ImageError(f"{path}: an array of shape {shape} may be (H, W, C) or (C, H, W). Save it as TIFF.")
    raise ImageError(
        f"{path}: an array of shape {shape} is no image; save (H, W), (H, W, C) or (C, H, W) with 1 to "
        f"{MOST_CHANNELS} channels."
    )
