"""Pictures of stacks as images and masks of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convlora.data.pixels.decoding import require_allowed_size
from convlora.data.pixels.masks import one_value_a_pixel
from convlora.data.scientific.geometry import Geometry
from convlora.data.scientific.intensity import as_bytes, stack_windows
from convlora.data.scientific.stacks import Stack
from convlora.data.settings import ImageLimits
from convlora.errors import ImageError, MaskError


@dataclass(frozen=True)
class StackImage:
    """A picture of a stack as an image."""

    stack: Stack
    index: int
    intensity: str = "auto"
    """How values become 8 bits; see `convlora.data.scientific.windows`."""

    def __str__(self) -> str:
        return f"{self.path}, {self.stack.unit} {self.index}" if self.stack.unit else str(self.path)

    @property
    def path(self) -> Path:
        """The file that it is in."""
        return self.stack.path

    @property
    def geometry(self) -> Geometry | None:
        """Where it lies; None if the file does not say."""
        return self.stack.geometry(self.index)

    @property
    def layout(self) -> str:
        """How its pixels are stored, in words."""
        channels = self.stack.channels
        return f"{self.stack.dtype}, {channels} {'channel' if channels == 1 else 'channels'}"

    def size(self, limits: ImageLimits) -> tuple[int, int]:
        """Height and width."""
        require_allowed_size(self.path, *self.stack.size, limits)
        return self.stack.size

    def read_channels(self, limits: ImageLimits) -> np.ndarray:
        """The values as the file means them: (H, W, C) of the stack's `dtype`, or the colours of its palette."""
        self.size(limits)
        return coloured(self.stack, self.stack.page(self.index, limits))

    def read_image(self, limits: ImageLimits) -> np.ndarray:
        """Its pixels through the window: uint8 (H, W, 3)."""
        self.size(limits)
        return as_rgb(self, self.stack, self.stack.page(self.index, limits), self.intensity, limits)

    def digest(self) -> str:
        """Hash of its values."""
        pixels = self.read_channels(ImageLimits(max_pixels=self.stack.size[0] * self.stack.size[1]))
        header = f"{pixels.dtype.str}{pixels.shape}".encode()
        return hashlib.sha256(header + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def as_rgb(name: object, stack: Stack, values: np.ndarray, intensity: str, limits: ImageLimits) -> np.ndarray:
    """Values (H, W, C) of a stack, or a part of them, as uint8 (H, W, 3) that may be written into.

    Raises:
        ImageError: The channels are no colours; `name` says of which image.
    """
    if stack.palette is not None:
        return coloured(stack, values)
    if stack.rgb is None:
        one = "Choose a volume with --volume" if stack.unit == "slice" else "Save one or three of them as an image"
        raise ImageError(
            f"{name}: has {stack.channels} channels, which are not red, green and blue. {one}, or use all of them with "
            f"--channels {stack.channels}."
        )
    pixels = as_bytes(values, stack_windows(stack, intensity, limits))
    fits = pixels.shape[-1] == 3 and stack.rgb == (0, 1, 2)
    if fits and pixels.flags.c_contiguous and pixels.flags.writeable and pixels.flags.owndata:
        return pixels
    return channels_last(pixels, stack.rgb)


def channels_last(pixels: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Some channels of (H, W, C) in a new array of rows; one by one, which is faster than NumPy's own way."""
    result = np.empty((*pixels.shape[:2], len(chosen)), dtype=pixels.dtype)
    for target, source in enumerate(chosen):
        result[..., target] = pixels[..., source]
    return result


def coloured(stack: Stack, values: np.ndarray) -> np.ndarray:
    """Values (H, W, 1) in the colours (H, W, 3) of their palette, if the stack has one; else as they are."""
    if stack.palette is None:
        return values
    table = np.zeros((2 ** (8 * values.dtype.itemsize), 3), dtype=np.uint8)
    table[: len(stack.palette)] = stack.palette
    return table[values[..., 0]]


@dataclass(frozen=True)
class StackMask:
    """A picture of a stack as a mask."""

    stack: Stack
    index: int

    def __str__(self) -> str:
        return f"{self.path}, {self.stack.unit} {self.index}" if self.stack.unit else str(self.path)

    @property
    def path(self) -> Path:
        """The file that it is in."""
        return self.stack.path

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """The values that it stores: int32 (H, W)."""
        require_allowed_size(self.path, *self.stack.size, limits)
        if self.stack.mask_problem is not None:
            raise MaskError(f"{self.path} {self.stack.mask_problem}, so its values are no class ids. Save it as PNG.")
        return one_value_a_pixel(str(self), self.stack.page(self.index, limits))
