"""Where the pixels of an image or a mask come from: a file of its own, or a part of a larger one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from convlora.data.settings import ImageLimits
from convlora.files import sha256

if TYPE_CHECKING:
    import numpy as np


class ImagePart(Protocol):
    """An image that is not a file of its own, such as a slice of a volume; its `str` says which, for messages.

    Parts are equal, and hash alike, if they are the same part read in the same way.
    """

    @property
    def path(self) -> Path:
        """The file that it is in."""

    def size(self, limits: ImageLimits) -> tuple[int, int]:
        """Height and width in pixels, without decoding the pixels.

        Raises:
            ImageError: as `read_image`.
        """

    def read_image(self, limits: ImageLimits) -> np.ndarray:
        """Its pixels: uint8 (H, W, 3), RGB.

        Raises:
            ImageError: not readable, or beyond the limits.
        """

    def digest(self) -> str:
        """A hexadecimal hash of its content: equal images have equal ones."""


class MaskPart(Protocol):
    """A mask that is not a file of its own, such as the polygons of one image; see `ImagePart`."""

    @property
    def path(self) -> Path:
        """The file that it is in."""

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """The values that it stores: int32 (H, W).

        Raises:
            ImageError: not readable, or beyond the limits.
            MaskError: it does not hold one whole number a pixel.
        """


ImageSource: TypeAlias = Path | ImagePart
MaskSource: TypeAlias = Path | MaskPart


def file_of(source: ImageSource | MaskSource) -> Path:
    """The file that an image or a mask is in."""
    return source if isinstance(source, Path) else source.path


def digest(source: ImageSource) -> str:
    """A hexadecimal hash of an image's content."""
    return sha256(source) if isinstance(source, Path) else source.digest()
