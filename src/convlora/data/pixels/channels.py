"""Images as raw channels: what a file stores, in its own units, without a detour over 8-bit RGB."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from convlora.data.pixels.arrays import array_size, is_array, read_array
from convlora.data.pixels.decoding import DEFAULT_LIMITS, IMAGE_SUFFIXES, opened, raw_mode, upright
from convlora.data.pixels.images import image_size, read_image
from convlora.data.pixels.tiffs import is_tiff, read_tiff, tiff_size
from convlora.data.settings import MOST_CHANNELS, ImageLimits
from convlora.data.sources import ImagePart
from convlora.errors import ImageError

CHANNEL_SUFFIXES = (*IMAGE_SUFFIXES, ".npy")
"""Suffixes of files of raw channels, in lower case."""

_NATIVE = ("uint8", "uint16", "int16", "float32")


def image_suffixes(channels: int | None) -> tuple[str, ...]:
    """Suffixes of image files, read as pictures (None) or as raw channels."""
    return IMAGE_SUFFIXES if channels is None else CHANNEL_SUFFIXES


def read_pixels(
    source: str | PathLike[str] | ImagePart, limits: ImageLimits = DEFAULT_LIMITS, channels: int | None = None
) -> np.ndarray:
    """An image as a model takes it: uint8 (H, W, 3), RGB; or with so many raw channels, as `read_channels`."""
    return read_image(source, limits) if channels is None else read_channels(source, limits, channels)


def read_channels(
    source: str | PathLike[str] | ImagePart, limits: ImageLimits = DEFAULT_LIMITS, channels: int | None = None
) -> np.ndarray:
    """The raw channels of one image, upright.

    PNG, JPEG, BMP and WebP give 1 (grey), 2 (with alpha), 3 (RGB) or 4 channels (RGBA); TIFF, by tifffile, what it
    stores, in either planar layout or as one page a channel; .npy its array, (H, W), (H, W, C) or (C, H, W). A part of
    a file gives its `read_channels(limits)`.

    Args:
        source: A file, or a part of one.
        limits: Checked before the pixels are decoded.
        channels: How many there must be, 1 to 16; None takes what there is.

    Returns:
        (H, W, C) uint8, uint16, int16 or float32, as stored; other real numbers as float32. NaN, and in a TIFF what it
        declares as such, marks pixels without data.

    Raises:
        ImageError: not readable, beyond the limits, infinite values, or another number of channels.
        SettingsError: tifffile is missing.
    """
    if isinstance(source, str | PathLike):
        path = Path(source)
        if is_array(path):
            values = read_array(path, limits, channels)
        elif is_tiff(path):
            values = read_tiff(path, limits)
        else:
            values = _read_picture(path, limits)
    else:
        read = getattr(source, "read_channels", None)
        if read is None:
            raise ImageError(f"{source}: gives a picture in RGB only, and no raw channels. Leave out --channels.")
        values = read(limits)
    return native_channels(source, values, channels)


def pixels_size(
    source: str | PathLike[str] | ImagePart, limits: ImageLimits = DEFAULT_LIMITS, channels: int | None = None
) -> tuple[int, int]:
    """Height and width in pixels of what `read_pixels` gives, from the file's header if that tells.

    Raises:
        ImageError: as `read_pixels`.
    """
    if channels is None or not isinstance(source, str | PathLike):
        return image_size(source, limits)
    path = Path(source)
    if is_array(path):
        return array_size(path, limits, channels)
    return tiff_size(path, limits) if is_tiff(path) else image_size(path, limits)


def _read_picture(path: Path, limits: ImageLimits) -> np.ndarray:
    with opened(path, limits) as image:
        if ";16" in (layout := raw_mode(image)) and not image.mode.startswith("I"):
            raise ImageError(f"{path}: of 16-bit colour ({layout}) only 8 bits could be read. Save it as TIFF or .npy.")
        picture = upright(image)
        if picture.mode in ("P", "PA"):
            picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
        elif picture.mode == "1":
            picture = picture.convert("L")
        if picture.mode not in ("L", "LA", "RGB", "RGBA", "I", "F") and not picture.mode.startswith("I;16"):
            raise ImageError(f"{path}: channels of colour mode {picture.mode} cannot be read. Save it as TIFF or .npy.")
        return np.array(picture)


def native_channels(source: object, values: np.ndarray, channels: int | None) -> np.ndarray:
    """Values (H, W) or (H, W, C) as `read_channels` gives them.

    Raises:
        ImageError: as there.
    """
    values = values[..., None] if values.ndim == 2 else values
    found = values.shape[2] if values.ndim == 3 else 0
    if not 1 <= found <= MOST_CHANNELS:
        raise ImageError(f"{source}: an array of shape {values.shape} is no image of 1 to {MOST_CHANNELS} channels.")
    if channels is not None and found != channels:
        raise ImageError(
            f"{source}: has {_count(found)}, wanted {channels}. Give images of {_count(channels)} or, to train on such "
            f"as this, --channels {found}."
        )
    kind = values.dtype.kind
    if kind not in "buif":
        raise ImageError(
            f"{source}: values of type {values.dtype} are no channels. Save real numbers, such as float32."
        )
    if kind == "b":
        values = values.astype(np.uint8)
    elif values.dtype.name not in _NATIVE:
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused below
            values = values.astype(np.float32)
    else:
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if kind == "f" and (count := int(np.count_nonzero(np.isinf(values)))):
        raise ImageError(
            f"{source}: {count} of {values.size} values are infinite, or too large for float32. Mend them, or set them "
            "to NaN if they are no data."
        )
    return np.ascontiguousarray(values)


def _count(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"
