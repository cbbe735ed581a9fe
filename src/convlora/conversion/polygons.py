"""The polygons of an object, exact or with fewer points."""

from __future__ import annotations

import numpy as np

from convlora.conversion.outlines import Polygon, trace
from convlora.conversion.pictures import Found
from convlora.data.extras import need
from convlora.data.readers.polygons import polygon as drawn


def polygons(found: Found, tolerance: float = 0.0) -> list[Polygon]:
    """Outlines of an object in coordinates of its image, from the top down.

    Args:
        found: The object; parts that touch in corners only become polygons of their own.
        tolerance: How far, in pixels, a point of the exact outline may lie from the new one (Douglas and Peucker's
            algorithm, keeping the topology); 0 gives the exact one.

    Raises:
        SettingsError: A tolerance needs shapely, which is not installed.
    """
    exact = [polygon.moved(found.left, found.top) for polygon in trace(found.mask)]
    return [_simplified(polygon, tolerance) for polygon in exact] if tolerance else exact


def _simplified(polygon: Polygon, tolerance: float) -> Polygon:
    shapely = need("shapely", "geo", "a tolerance of polygons")
    simple = shapely.Polygon(polygon.outer, polygon.holes).simplify(tolerance, preserve_topology=True)
    return Polygon(_points(simple.exterior), [_points(ring) for ring in simple.interiors])


def _points(ring) -> np.ndarray:  # type: ignore[no-untyped-def]  # of shapely
    return np.array(ring.coords)[:-1].astype(np.int64)  # a part of the corners that there were


class Fit:
    """How well polygons cover the objects that they are outlines of, by the pixels whose centres they hold."""

    def __init__(self) -> None:
        self.common = 0
        """Pixels that object and polygons share, over all objects."""
        self.either = 0
        """Pixels of either."""

    def compare(self, found: Found, outlined: list[Polygon]) -> None:
        """Count the pixels of one object."""
        height, width = found.mask.shape
        covered = np.zeros((height, width), dtype=bool)
        for polygon in outlined:
            outer, *holes = polygon.moved(-found.left, -found.top).rings
            region = drawn(outer, holes)
            cover = None if isinstance(region, str) else region.cover(height, width)
            if cover is not None:
                rows, columns, inside = cover
                covered[rows, columns] |= inside
        self.common += int(np.count_nonzero(covered & found.mask))
        self.either += int(np.count_nonzero(covered | found.mask))

    @property
    def iou(self) -> float:
        """Intersection over union of all objects' pixels; 1 if there are none."""
        return self.common / self.either if self.either else 1.0
