"""PNG files of 16-bit grey, of which cameras and microscopes often fill a part of the range only."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convlora.data.pixels.decoding import opened, require_allowed_size, upright
from convlora.data.scientific.geometry import Geometry
from convlora.data.scientific.stacks import sampled
from convlora.data.settings import ImageLimits
from convlora.errors import ImageError

_HEADER = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_GREY = 0


@dataclass(frozen=True)
class DeepPng:
    """See `convlora.data.scientific.stacks.Stack`."""

    path: Path
    size: tuple[int, int]
    count: int = 1
    channels: int = 1
    dtype: str = "uint16"
    bits: int = 16
    rgb: tuple[int, int, int] = (0, 0, 0)
    palette: None = None
    mask_problem: None = None
    unit: str = ""

    def page(self, index: int, limits: ImageLimits) -> np.ndarray:
        """Its values (H, W, 1)."""
        with opened(self.path, limits) as image:
            values = np.asarray(upright(image))
        if values.shape != self.size:
            raise ImageError(f"{self.path}: is to be turned by a quarter (EXIF). Save it upright.")
        return values.astype(np.uint16)[..., None]

    def sample(self, limits: ImageLimits) -> np.ndarray:
        """Its values (n, 1)."""
        return sampled(self, limits)

    def in_hounsfield_units(self, limits: ImageLimits) -> bool:
        """No."""
        return False

    def geometry(self, index: int) -> Geometry | None:
        """None."""
        return None


def is_deep_png(path: Path) -> bool:
    """Whether the first bytes are those of a PNG file of 16-bit grey."""
    return _header(path) is not None


def open_deep_png(path: Path, limits: ImageLimits) -> DeepPng:
    """Read the header.

    Raises:
        ImageError: It is gone or another, or the size is beyond the limits.
    """
    size = _header(path)
    if size is None:
        raise ImageError(f"{path}: is no 16-bit PNG any more; get the file again.")
    require_allowed_size(path, *size, limits)
    return DeepPng(path, size)


def _header(path: Path) -> tuple[int, int] | None:
    """Height and width; None if it is any other file."""
    try:
        with path.open("rb") as stream:
            head = stream.read(26)
    except OSError:
        return None
    if len(head) < 26 or not head.startswith(_HEADER):
        return None
    width, height, depth, colour = struct.unpack(">IIBB", head[16:])
    return (height, width) if (depth, colour) == (16, _GREY) else None
