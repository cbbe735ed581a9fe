"""Parts of images and masks, without decoding the rest of the file where its format allows that."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from convlora.data.pixels.channels import native_channels, read_pixels
from convlora.data.pixels.masks import read_mask
from convlora.data.settings import ImageLimits
from convlora.data.sources import ImageSource, MaskSource


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def widened(self, margin: int, size: tuple[int, int]) -> Box:
        """With so many pixels more on each side, as far as an image of this size has them."""
        top, left = max(0, self.top - margin), max(0, self.left - margin)
        bottom, right = self.top + self.height + margin, self.left + self.width + margin
        return Box(top, left, min(size[0], bottom) - top, min(size[1], right) - left)


def has_windows(image: ImageSource, mask: MaskSource | None = None, channels: int | None = None) -> bool:
    """Whether windows of an image, and of its mask if one is given, are read without decoding the whole."""
    reads = "read_window" if channels is None else "read_channels_window"
    # a mask that wraps another one has a method for windows even if that one has none
    return hasattr(image, reads) and (
        mask is None or (hasattr(mask, "read_window") and getattr(mask, "reads_windows", True))
    )


def read_window(source: ImageSource, box: Box, limits: ImageLimits, channels: int | None = None) -> np.ndarray:
    """The pixels of a part of an image: uint8 (h, w, 3), RGB, or (h, w, C) raw channels, as `read_pixels`.

    Args:
        source: If it is a part of a file with a `read_window` of its own, the limits are those of the box, and memory
            does not grow with the image; else all of it is read and cut.
        box: Within the image.
        limits: Checked before anything is decoded.
        channels: Number of raw channels; None reads RGB.

    Raises:
        ImageError: as `read_pixels`.
    """
    if not has_windows(source, channels=channels):
        return read_pixels(source, limits, channels)[box.slices]
    part: Any = source
    if channels is None:
        pixels: np.ndarray = part.read_window(*box, limits)
        return pixels
    return native_channels(source, part.read_channels_window(*box, limits), channels)


def read_mask_window(source: MaskSource, box: Box, limits: ImageLimits) -> np.ndarray:
    """The values that a part of a mask stores: int32 (h, w); see `read_window`.

    Raises:
        ImageError, MaskError: as `read_mask`.
    """
    read = getattr(source, "read_window", None)
    if read is None:
        return read_mask(source, limits)[box.slices]
    values: np.ndarray = read(*box, limits)
    return values
