"""Exact outlines of a mask along the edges of its pixels.

Coordinates are (x, y) with the pixel of column j and row i covering [j, j + 1] × [i, i + 1]. Whoever fills the
polygons with the pixels whose centres are inside gets exactly the mask back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

_UP_LEFT, _UP_RIGHT, _DOWN_LEFT, _DOWN_RIGHT = range(4)  # the pixels around a corner


@dataclass(frozen=True)
class Polygon:
    """One region of pixels that touch along edges.

    Its rings are valid in the sense of OGC and GeoJSON: none crosses or touches itself; two of them meet in single
    points at most. They are not closed (the first point is not repeated).
    """

    outer: np.ndarray
    """(n, 2) corners of the outline: clockwise as one sees it, with y downwards."""
    holes: list[np.ndarray] = field(default_factory=list)
    """(m, 2) corners of each hole, anticlockwise."""

    @property
    def rings(self) -> list[np.ndarray]:
        """The outline, then the holes."""
        return [self.outer, *self.holes]

    def moved(self, left: int, top: int) -> Polygon:
        """The same polygon elsewhere."""
        step = np.array([left, top])
        return Polygon(self.outer + step, [hole + step for hole in self.holes])


def trace(mask: np.ndarray) -> list[Polygon]:
    """The polygons of a mask, bool (H, W), from the top down; pixels that touch in a corner only are apart."""
    padded, count = ndimage.label(np.pad(mask, 1))
    if not count:
        return []
    nodes = _nodes(padded)
    outer: dict[int, np.ndarray] = {}
    holes: dict[int, list[np.ndarray]] = {}
    for ring, region in _rings(nodes, padded):
        if _doubled_area(ring) > 0:
            outer[region] = ring
        else:
            holes.setdefault(region, []).append(ring)
    return [Polygon(ring, holes.get(region, [])) for region, ring in sorted(outer.items())]


def _pixels_around(padded: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(4, n): region of the four pixels around corners, from the regions of a mask padded by 1; 0 is none."""
    return np.stack([padded[y + pixel // 2, x + pixel % 2] for pixel in range(4)])


def _nodes(padded: np.ndarray) -> np.ndarray:
    """(n, 4) columns y, x, whether the ring goes on to the right, whether it goes on downwards.

    A ring turns where one or three of four pixels are inside. Where two are that meet in the corner, two rings meet
    (or one twice): each goes around one of the pixels outside if the two inside are one region, else around one of
    those inside. That is what keeps the rings from touching themselves.
    """
    inside = (padded > 0).view(np.uint8)
    beside = inside[:, :-1] + inside[:, 1:]
    number = beside[:-1] + beside[1:]
    y, x = np.nonzero(number & 1)
    four = _pixels_around(padded, y, x) > 0
    turns = np.where(number[y, x] == 1, four.argmax(axis=0), four.argmin(axis=0))  # the pixel unlike the other three
    places, pixels = [np.stack([y, x], axis=1)], [turns]
    y, x = np.nonzero((number == 2) & (inside[:-1, :-1] == inside[1:, 1:]))
    four = _pixels_around(padded, y, x)
    falling = four[_UP_LEFT] > 0
    one_region = np.where(falling, four[_UP_LEFT] == four[_DOWN_RIGHT], four[_UP_RIGHT] == four[_DOWN_LEFT])
    for crossing, pair in (
        (falling != one_region, (_UP_LEFT, _DOWN_RIGHT)),
        (falling == one_region, (_UP_RIGHT, _DOWN_LEFT)),
    ):
        for pixel in pair:
            places.append(np.stack([y[crossing], x[crossing]], axis=1))
            pixels.append(np.full(len(places[-1]), pixel))
    around = np.concatenate(pixels)
    return np.column_stack([np.concatenate(places), around % 2, around // 2])


def _rings(nodes: np.ndarray, padded: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Every ring, (n, 2) as x, y with the inside to its right, and the region that it bounds."""
    y, x, right, down = nodes.T
    across, along = np.empty(len(nodes), dtype=np.int64), np.empty(len(nodes), dtype=np.int64)
    for partner, order in ((across, np.lexsort((right, x, y))), (along, np.lexsort((down, y, x)))):
        partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]  # ends of one straight piece
    pixel = np.where(right == 1, _DOWN_RIGHT, _UP_LEFT)  # inside, if the ring leaves the corner sideways
    region = padded[y + pixel // 2, x + pixel % 2]
    sideways = region > 0
    following = np.where(sideways, across, along).tolist()
    points = np.stack([x, y], axis=1)
    rings = []
    seen = bytearray(len(nodes))
    for start in np.flatnonzero(sideways).tolist():
        if seen[start]:
            continue
        path, node = [], start
        while not seen[node]:
            seen[node] = 1
            path.append(node)
            node = following[node]
        rings.append((points[path], int(region[start])))
    return rings


def _doubled_area(ring: np.ndarray) -> int:
    x, y = ring.T.astype(np.int64)
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
