"""Image files of every common mode become upright 8-bit RGB arrays."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image

from convlora.data.pixels.decoding import (
    DEFAULT_LIMITS,
    IMAGE_SUFFIXES,
    Embedded,
    opened,
    raw_mode,
    upright,
    white_is_zero,
)
from convlora.data.pixels.decoding import image_size as file_size
from convlora.data.settings import ImageLimits
from convlora.data.sources import ImagePart
from convlora.errors import ImageError

__all__ = ["IMAGE_SUFFIXES", "ImageLimits", "image_size", "read_image"]

_OPAQUE_MODES = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA")


def image_size(
    source: str | PathLike[str] | Embedded | ImagePart, limits: ImageLimits = DEFAULT_LIMITS
) -> tuple[int, int]:
    """Height and width in pixels of an upright image, which is not decoded if its header tells.

    Raises:
        ImageError: as `read_image`.
    """
    return file_size(source, limits) if isinstance(source, str | PathLike | Embedded) else source.size(limits)


def read_image(source: str | PathLike[str] | Embedded | ImagePart, limits: ImageLimits = DEFAULT_LIMITS) -> np.ndarray:
    """Decode one image to upright RGB.

    EXIF orientation is applied. Grey becomes three equal channels. 16-bit grey is scaled by 1/257 and rounded, not
    clipped; of 16-bit colour Pillow keeps the high bytes, at most one level away from that. Floating-point grey is
    taken as 0..1 if no value is above 1, else as 0..255. Alpha is composited on black.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ImageError: not an allowed format or mode, several frames, more than `limits.max_pixels`, truncated, damaged,
            or values outside of the ranges above.
    """
    if not isinstance(source, str | PathLike | Embedded):
        return source.read_image(limits)
    path = source if isinstance(source, Embedded) else Path(source)
    with opened(path, limits) as image:
        layout, inverted = raw_mode(image), white_is_zero(image)
        picture = upright(image)
        if picture.mode == "I" or picture.mode.startswith("I;16"):
            grey = _from_integers(path, np.asarray(picture), top=4095 if layout == "I;12" else 65535)
        elif picture.mode == "F":
            grey = _from_floats(path, np.asarray(picture))
        else:
            return _colours(path, picture)
        return np.repeat((255 - grey if inverted else grey)[..., None], 3, axis=2)


def _from_integers(path: object, values: np.ndarray, top: int) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > top:
        raise ImageError(
            f"{path}: grey values from {low} to {high} are outside of 0..{top}. "
            "Scale them to 8 or 16 bits and save the image again."
        )
    return ((values.astype(np.uint32) * 510 + top) // (2 * top)).astype(np.uint8)  # v * 255 / top, rounded


def _from_floats(path: object, values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # also false for NaN
        raise ImageError(
            f"{path}: floating-point values from {low:g} to {high:g} are neither within 0..1 nor within 0..255. "
            "Scale them to 8 or 16 bits and save the image again."
        )
    return np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)


def _colours(path: object, picture: Image.Image) -> np.ndarray:
    if picture.mode not in _OPAQUE_MODES + _ALPHA_MODES:
        raise ImageError(f"{path}: colour mode {picture.mode} is not supported; save it as an 8-bit RGB PNG.")
    if not picture.has_transparency_data:
        return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
    if picture.mode == "La":  # premultiplied; Pillow converts it to LA only
        picture = picture.convert("LA")
    black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
    return np.array(Image.alpha_composite(black, picture.convert("RGBA")).convert("RGB"))
