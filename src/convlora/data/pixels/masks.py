"""Mask files become arrays of the values that they store; never of the colours that a viewer shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from convlora.data.labels.detection import detect_labels
from convlora.data.labels.format import LabelFormat
from convlora.data.pixels.decoding import DEFAULT_LIMITS, OR_CLASSES, Embedded, opened, raw_mode, upright, white_is_zero
from convlora.data.samples import Sample
from convlora.data.settings import ImageLimits
from convlora.data.sources import MaskSource
from convlora.errors import MaskError

__all__ = ["LabelFormat", "detect_labels", "read_mask", "require_equal_sizes"]


def read_mask(source: MaskSource | Embedded, limits: ImageLimits = DEFAULT_LIMITS) -> np.ndarray:
    """The values that a mask stores, upright.

    A palette file gives its indices, a 1-bit file 0 and 1, a 2- or 4-bit one 0..3 or 0..15, a 16-bit one its values
    unscaled. Colour files are taken if their channels are equal; an opaque alpha channel is dropped.

    Returns:
        int32 (H, W).

    Raises:
        ImageError: the file is not readable as an image within the limits.
        MaskError: it is, but does not hold one whole number a pixel.
    """
    if not isinstance(source, Path | Embedded):
        return source.read_mask(limits)
    path = source
    with opened(path, limits, OR_CLASSES) as image:
        layout, lossy = raw_mode(image), image.format in ("JPEG", "MPO")
        if white_is_zero(image):
            raise MaskError(f"{path}: this TIFF stores white as 0, so what 0 means is not sure. Save the mask as PNG.")
        return _values(path, upright(image), layout, lossy)


def require_equal_sizes(sample: Sample, image_size: tuple[int, int], mask_size: tuple[int, int]) -> None:
    """Check that an image and its mask, both upright, have the same (H, W).

    Raises:
        MaskError: they differ.
    """
    if image_size == mask_size:
        return
    turned = " One of the two is turned: check the EXIF orientation." if image_size == mask_size[::-1] else ""
    raise MaskError(
        f"{sample.mask}: {mask_size[0]} x {mask_size[1]} pixels (height x width), but its image {sample.image} has "
        f"{image_size[0]} x {image_size[1]}.{turned} Resize the mask with nearest-neighbour, or draw it again."
    )


def _values(path: object, picture: Image.Image, layout: str, lossy: bool) -> np.ndarray:
    mode = picture.mode
    if mode == "I" or mode.startswith("I;16") or mode in ("1", "P"):
        return np.asarray(picture).astype(np.int32)
    if ";16" in layout:  # Pillow keeps the high bytes only, where class ids are all 0
        raise MaskError(f"{path}: 16-bit colour or alpha cannot be read as class ids. Save one 8- or 16-bit channel.")
    if mode == "L":
        step = {"L;2": 85, "L;4": 17}.get(layout[:3], 1)  # Pillow spreads 2 and 4 bits over 0..255
        return np.asarray(picture).astype(np.int32) // step
    if mode == "F":
        return _whole_numbers(path, np.asarray(picture))
    if mode in ("LA", "PA", "RGB", "RGBA"):
        return _one_channel(path, np.asarray(picture), has_alpha=mode != "RGB", lossy=lossy)
    raise MaskError(f"{path}: a mask of colour mode {mode} cannot be read. Save one channel of class ids as PNG.")


def one_value_a_pixel(source: object, values: np.ndarray) -> np.ndarray:
    """Values (H, W, C) of a mask of any type as int32 (H, W); several channels must be equal.

    Raises:
        MaskError: They are not, or not whole numbers that int32 holds.
    """
    first = values[..., 0]
    if values.shape[-1] > 1:
        return _one_channel(source, values, has_alpha=False, lossy=False)
    if first.dtype.kind == "f":
        return _whole_numbers(source, first)
    if first.dtype.itemsize >= 4 and first.size and not (first.max() <= 2**31 - 1 and first.min() >= -(2**31)):
        raise MaskError(f"{source}: holds {int(first.max())}, which is no class id. Number the classes from 0 on.")
    return first.astype(np.int32)


def _whole_numbers(path: object, values: np.ndarray) -> np.ndarray:
    whole = (np.rint(values) == values) & (np.abs(values) < 2**24)  # float32 holds whole numbers up to there
    if not whole.all():
        raise MaskError(
            f"{path}: {np.count_nonzero(~whole)} of {values.size} pixels are not whole numbers, such as "
            f"{values[~whole][0]:g}. A mask holds class ids; threshold it and save it as PNG."
        )
    return values.astype(np.int32)


def _one_channel(path: object, channels: np.ndarray, *, has_alpha: bool, lossy: bool) -> np.ndarray:
    if has_alpha and (clear := np.count_nonzero(channels[..., -1] != 255)):
        raise MaskError(
            f"{path}: {clear} of {channels[..., -1].size} pixels are transparent, so their class is not sure. "
            "Save the mask without an alpha channel."
        )
    colours = channels[..., :-1] if has_alpha else channels
    different = (colours != colours[..., :1]).any(axis=-1)
    if different.any():
        example = tuple(int(value) for value in colours[different][0])
        why = "JPEG also smears the values of a mask. " if lossy else ""
        raise MaskError(
            f"{path}: a mask in colour: {np.count_nonzero(different)} of {different.size} pixels, such as {example}. "
            f"{why}Say what the colours mean with --mask_format colours --colours FILE, whose lines are NAME R G B; "
            "or, if each channel is a class, --task multilabel; or save one channel of class ids as PNG."
        )
    return colours[..., 0].astype(np.int32)
