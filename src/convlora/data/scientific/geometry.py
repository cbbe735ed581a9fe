"""Where a picture lies in its file, and on earth or in the body; whoever writes masks back reads it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np


@dataclass(frozen=True)
class RasterGeometry:
    """Of a GeoTIFF."""

    path: Path
    size: tuple[int, int]
    """(H, W) of the whole raster."""
    crs: str | None
    """Coordinate reference system as WKT; None if the file says none."""
    transform: tuple[float, float, float, float, float, float]
    """(a, b, c, d, e, f): the corner (column, row) lies at x = a·column + b·row + c, y = d·column + e·row + f."""

    @property
    def volume(self) -> Hashable:
        """Equal for pictures of the same file."""
        return str(self.path)


@dataclass(frozen=True)
class NiftiGeometry:
    """Of an axial slice of a NIfTI volume."""

    path: Path
    index: int
    """Number of the slice, 0 at the feet."""
    count: int
    """Slices of the volume."""
    shape: tuple[int, int, int]
    """Of the array in the file, without axes of time or channels."""
    affine: tuple[tuple[float, float, float, float], ...]
    """4 × 4, from indices of the array in the file to millimetres in RAS."""
    axes: tuple[int, int, int]
    """Axes of the array in the file along slices, rows and columns."""
    backwards: tuple[bool, bool, bool]
    """Whether slices, rows and columns run against these axes."""

    @property
    def volume(self) -> Hashable:
        """Equal for slices of the same volume."""
        return str(self.path)

    def as_stored(self, slices: np.ndarray) -> np.ndarray:
        """A stack of slices (count, H, W) as an array of `shape`, which `affine` belongs to."""
        turned = np.flip(slices, [axis for axis, back in enumerate(self.backwards) if back])
        return np.transpose(turned, np.argsort(self.axes))

    def as_slices(self, stored: np.ndarray) -> np.ndarray:
        """An array of `shape` as a stack of slices (count, H, W): the inverse of `as_stored`, without a copy."""
        turned = np.transpose(stored, self.axes)
        return np.flip(turned, [axis for axis, back in enumerate(self.backwards) if back])


@dataclass(frozen=True)
class DicomGeometry:
    """Of a slice of a DICOM series."""

    path: Path
    """Folder or file of the series."""
    series: str
    """SeriesInstanceUID."""
    index: int
    """Number of the slice along the normal of the pictures."""
    count: int
    """Slices of the series."""
    instances: tuple[tuple[Path, int], ...] = field(repr=False, compare=False)
    """File and number of the frame in it, from 0, of every slice of the series in their order."""

    @property
    def volume(self) -> Hashable:
        """Equal for slices of the same series."""
        return str(self.path), self.series


Geometry: TypeAlias = RasterGeometry | NiftiGeometry | DicomGeometry


def geometry_of(source: object) -> Geometry | None:
    """The geometry of an image's source; None if it has none, as plain files."""
    geometry = getattr(source, "geometry", None)
    return geometry if isinstance(geometry, Geometry) else None
