"""Images and masks that are stored as image files inside of another file: a table, or a tool's JSON."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from convlora.data.pixels.decoding import Embedded
from convlora.data.pixels.images import image_size, read_image
from convlora.data.pixels.masks import read_mask
from convlora.data.settings import ImageLimits


class Cell(Protocol):
    """Where such a file is stored; equal places are equal and hash alike, and their `str` is for messages."""

    @property
    def path(self) -> Path:
        """The outer file."""

    def data(self) -> bytes:
        """The bytes of the inner file.

        Raises:
            ImageError: They cannot be read any more.
        """


@dataclass(frozen=True)
class _Embedded:
    """An image file in a cell."""

    cell: Cell

    @property
    def path(self) -> Path:
        """The outer file."""
        return self.cell.path

    def __str__(self) -> str:
        return str(self.cell)

    def file(self) -> Embedded:
        """The inner file."""
        return Embedded(str(self.cell), self.cell.data())


@dataclass(frozen=True)
class EmbeddedImage(_Embedded):
    """An image in a cell."""

    def size(self, limits: ImageLimits) -> tuple[int, int]:
        """Height and width in pixels."""
        return image_size(self.file(), limits)

    def read_image(self, limits: ImageLimits) -> np.ndarray:
        """Its pixels: uint8 (H, W, 3)."""
        return read_image(self.file(), limits)

    def digest(self) -> str:
        """SHA-256 of the inner file."""
        return hashlib.sha256(self.cell.data()).hexdigest()


@dataclass(frozen=True)
class EmbeddedMask(_Embedded):
    """A mask in a cell."""

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """The values that it stores: int32 (H, W)."""
        return read_mask(self.file(), limits)
