"""Regions of an image as people draw them, and which pixels are inside; one rule for every annotation format.

Coordinates are x to the right and y downwards in pixels, from the corner of the image: the pixel in row 0 and
column 0 spans 0..1 in both, and its centre is at (0.5, 0.5). **A pixel is inside if its centre is.** A centre that
lies on an edge belongs to the shape on the right of the edge or below it, so shapes that share an edge share no
pixel and leave none out. Within one polygon the even-odd rule holds: a ring within a ring is a hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from convlora.errors import MaskError

FARTHEST = 1e7
"""Coordinates beyond it are no place in an image."""
_FAR_OFF = "coordinates that are not finite or far off any image"
_CHUNK = 2**20

Cover: TypeAlias = tuple[slice, slice, np.ndarray]
"""Rows and columns of an image, and which of their pixels are inside: bool of that shape."""


class Region(Protocol):
    """A set of pixels of an image of any size."""

    @property
    def area(self) -> float:
        """Its size in pixels, to tell larger from smaller ones."""

    def cover(self, height: int, width: int) -> Cover | None:
        """Its pixels in an image of that size; None if there are none."""


@dataclass(frozen=True, eq=False, slots=True)
class Polygon:
    """Rings of points, the first outermost; `polygon` makes and checks one."""

    rings: tuple[np.ndarray, ...]
    """Each float64 (n, 2), x and y in pixels; the last point is joined to the first."""

    @property
    def area(self) -> float:
        """Of the outer ring less that of the holes."""
        areas = [abs(_signed_area(ring)) for ring in self.rings]
        return areas[0] - sum(areas[1:])

    def scaled(self, x: float, y: float) -> Polygon:
        """The same with all x and y multiplied."""
        return Polygon(tuple(ring * (x, y) for ring in self.rings))

    def outside(self, height: float, width: float) -> bool:
        """Whether all of it is left, right, above or below an image of that size."""
        points = self.rings[0]
        return bool((points.max(axis=0) <= 0).any() or (points.min(axis=0) >= (width, height)).any())

    def cover(self, height: int, width: int) -> Cover | None:
        """Its pixels in an image of that size; None if there are none.

        Raises:
            MaskError: It winds to and fro more often than the image has pixels.
        """
        points = np.concatenate(self.rings)
        left, top = (int(v) for v in np.clip(np.ceil(points.min(axis=0) - 0.5), 0, (width, height)))
        right, bottom = (int(v) for v in np.clip(np.ceil(points.max(axis=0) - 0.5), 0, (width, height)))
        if left >= right or top >= bottom:
            return None
        edges = np.concatenate([np.hstack([ring, np.roll(ring, -1, axis=0)]) for ring in self.rings])
        starts = _crossings(edges, top, bottom, left, right)
        inside = _from_runs(starts, (bottom - top) * (right - left + 1)).reshape(bottom - top, -1)[:, :-1]
        return slice(top, bottom), slice(left, right), inside


@dataclass(frozen=True, eq=False, slots=True)
class Runs:
    """A binary mask as lengths of runs, alternately outside and inside, the first outside (and perhaps 0)."""

    counts: np.ndarray
    """int64 (n,): with sum height · width."""
    height: int
    width: int
    top: int = 0
    """Row of the image that its first row is in."""
    left: int = 0
    """Column of the image that its first column is in."""
    by_columns: bool = False
    """Whether runs go down the columns, as COCO's, or along the rows."""

    @classmethod
    def of(cls, mask: np.ndarray, top: int = 0, left: int = 0) -> Runs:
        """The runs of a boolean mask (H, W)."""
        flat = np.concatenate([[False], mask.ravel(), [not mask.ravel()[-1]]])
        bounds = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1])])
        return cls(np.diff(bounds), mask.shape[0], mask.shape[1], top, left)

    @property
    def area(self) -> float:
        """Pixels inside."""
        return float(self.counts[1::2].sum())

    def outside(self, height: float, width: float) -> bool:
        """Whether all of its rows or columns are beyond an image of that size."""
        left, top = self.left, self.top
        return top >= height or left >= width or top + self.height <= 0 or left + self.width <= 0

    def cover(self, height: int, width: int) -> Cover | None:
        """Its pixels in an image of that size; what lies beyond the image is cut off.

        Raises:
            MaskError: It is larger than the image.
        """
        if self.height > height or self.width > width:
            raise MaskError(
                f"a mask of {self.height} x {self.width} pixels (height x width) is larger than its image of "
                f"{height} x {width}"
            )
        flat = _from_runs(np.cumsum(self.counts)[:-1], self.height * self.width)
        inside = flat.reshape(self.width, self.height).T if self.by_columns else flat.reshape(self.height, self.width)
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = min(self.top + self.height, height), min(self.left + self.width, width)
        if top >= bottom or left >= right:
            return None
        cut = inside[top - self.top : bottom - self.top, left - self.left : right - self.left]
        return slice(top, bottom), slice(left, right), cut


def polygon(exterior: Any, holes: Sequence[Any] = ()) -> Polygon | str:
    """A polygon from points as they were read; or, in a few words, why it is none.

    Args:
        exterior: Sequence of (x, y) in pixels, or array (n, 2). A last point equal to the first does no harm.
        holes: Each like it.
    """
    rings = []
    for points in (exterior, *holes):
        try:
            ring = np.array(points, dtype=np.float64)
        except (ValueError, TypeError, OverflowError):
            return "coordinates that are not numbers"
        if ring.size == 0 or (ring.ndim == 2 and ring.shape[1] == 2 and len(ring) < 3):
            return "fewer than 3 points"
        if ring.ndim != 2 or ring.shape[1] != 2:
            return "coordinates that are not pairs"
        if not (np.abs(ring) <= FARTHEST).all():  # also false for NaN
            return _FAR_OFF
        if _is_line(ring):
            return "no area"
        rings.append(ring)
    return Polygon(tuple(rings))


def runs(counts: Any, height: int, width: int, top: int = 0, left: int = 0, *, by_columns: bool = False) -> Runs | str:
    """Runs as they were read; or, in a few words, why they are none. Arguments as of `Runs`."""
    try:
        lengths = np.array(counts, dtype=np.int64)
    except (ValueError, TypeError, OverflowError):
        return "runs that are not whole numbers"
    if lengths.ndim != 1 or (lengths < 0).any() or (lengths > 2**40).any():
        return "runs that are not lengths"
    if height < 1 or width < 1 or int(lengths.sum()) != height * width:
        return "runs that do not add up to its size"
    return Runs(lengths, height, width, top, left, by_columns) if lengths[1::2].any() else "no area"


def rectangle(left: float, top: float, right: float, bottom: float) -> Polygon | str:
    """A polygon of four corners; as `polygon`."""
    return polygon([(left, top), (right, top), (right, bottom), (left, bottom)])


def ellipse(centre: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0) -> Polygon | str:
    """An ellipse as a polygon, turned clockwise about its centre; its sides are at most 1/100 pixel within it; as
    `polygon`."""
    largest = float(np.abs([*centre, *radii, degrees]).max())
    if not largest <= FARTHEST:  # also of NaN
        return _FAR_OFF
    count = int(np.clip(np.ceil(np.pi / np.arccos(1 - 0.01 / max(largest, 0.01))), 16, 4096))
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    turned = np.deg2rad(degrees)
    x, y = radii[0] * np.cos(angles), radii[1] * np.sin(angles)
    return polygon(
        np.stack(
            [
                centre[0] + x * np.cos(turned) - y * np.sin(turned),
                centre[1] + x * np.sin(turned) + y * np.cos(turned),
            ],
            axis=1,
        )
    )


def _crossings(edges: np.ndarray, top: int, bottom: int, left: int, right: int) -> np.ndarray:
    """Where inside begins and ends: sorted positions in a flat array of rows of right - left + 1 columns.

    The number in each row is even; crossings left or right of the columns are at the ends, and one column more
    than the image's takes those that lie beyond.
    """
    upwards = edges[:, 1] > edges[:, 3]
    edges = np.where(upwards[:, None], edges[:, [2, 3, 0, 1]], edges)  # an edge is the same in both directions
    first = np.clip(np.ceil(edges[:, 1] - 0.5), top, bottom).astype(np.int64)
    last = np.clip(np.ceil(edges[:, 3] - 0.5), top, bottom).astype(np.int64)
    rows = last - first
    edges, first, rows = edges[rows > 0], first[rows > 0], rows[rows > 0]
    ends = np.cumsum(rows)
    total = int(ends[-1]) if len(ends) else 0
    if total > 4 * (bottom - top) * (right - left + 1) + 10 * _CHUNK:
        raise MaskError(f"a polygon of {len(edges)} edges crosses the rows of its image {total} times")
    stride = right - left + 1
    found = np.empty(total, dtype=np.int64)
    for begin in range(0, total, _CHUNK):  # a chunk may hold a part of an edge
        end = min(begin + _CHUNK, total)
        some = slice(int(np.searchsorted(ends, begin, side="right")), int(np.searchsorted(ends, end)) + 1)
        start = np.maximum(ends[some] - rows[some], begin)
        count = np.minimum(ends[some], end) - start
        row = np.arange(begin, end) - np.repeat(ends[some] - rows[some] - first[some], count)
        x0, y0, x1, y1 = np.repeat(edges[some], count, axis=0).T
        x = x0 + (row + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
        column = np.clip(np.ceil(x - 0.5), left, right).astype(np.int64)
        found[begin:end] = (row - top) * stride + column - left
    found.sort()
    return found


def _from_runs(bounds: np.ndarray, length: int) -> np.ndarray:
    """A flat mask that is False up to the first of the ascending bounds, then True up to the next, and so on."""
    counts = np.diff(np.concatenate([[0], bounds, [length]]))
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts)


def _signed_area(ring: np.ndarray) -> float:
    x, y = (ring - ring[0]).T  # so that the first point, which the last is joined to, adds nothing
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def _is_line(ring: np.ndarray) -> bool:
    """Whether all points are on one line; a figure of eight encloses pixels although its signed area is 0."""
    if abs(_signed_area(ring)) > 1e-6:
        return False  # spares most rings the rest
    offsets = ring - ring[0]
    lengths = np.abs(offsets).sum(axis=1)
    direction = offsets[lengths.argmax()]
    heights = np.abs(offsets[:, 0] * direction[1] - offsets[:, 1] * direction[0])
    return bool((heights <= 1e-12 * lengths.max() ** 2).all())
