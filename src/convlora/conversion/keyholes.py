"""Polygons with holes as one ring, for formats that know no holes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np

from convlora.conversion.outlines import Polygon


class _Door(NamedTuple):
    """Where a cut begins, on an edge of a ring, and the hole and its corner that it leads to."""

    y: int
    x: float
    hole: int
    corner: int


_Doors: TypeAlias = dict[tuple[int, int], list[_Door]]


def one_ring(polygon: Polygon) -> np.ndarray:
    """(n, 2) corners of one ring that goes into every hole and back by the same way, a cut of no width.

    A cut starts at the leftmost corner of a hole and runs left, along the line between two rows of pixels, to the next
    ring. It is passed twice in opposite directions, so the even-odd rule and the nonzero rule both fill what the
    polygon covers. Holes that touch what they are cut to need no way.
    """
    if not polygon.holes:
        return polygon.outer
    rings, doors = [ring.tolist() for ring in polygon.rings], _doors(polygon.rings)
    points: list[tuple[float, float]] = []
    waiting = [_walk(rings[0], 0, 0, doors)]
    while waiting:  # not recursion: cuts may lead from hole to hole by the thousand
        step = next(waiting[-1], None)
        if step is None:
            waiting.pop()
        elif isinstance(step, _Door):
            waiting.append(_walk(rings[step.hole], step.hole, step.corner, doors))
        elif not points or points[-1] != step:
            points.append(step)
    if points[0] == points[-1]:
        points.pop()
    return np.array(points)


def _doors(rings: list[np.ndarray]) -> _Doors:
    """The cuts that begin on each edge, by its ring and the corner that starts it."""
    start = np.concatenate(rings)
    (x, y), (run, rise) = start.T, (np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]) - start).T
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    corner = np.concatenate([np.arange(len(ring)) for ring in rings])
    # every edge that is not level once for each line between rows that it reaches, ordered by line and x
    steep = np.flatnonzero(rise)
    heights = np.abs(rise[steep]) + 1
    edge = np.repeat(steep, heights)
    top = np.minimum(y, y + rise)[edge]
    line = top + np.arange(len(edge)) - np.repeat(np.cumsum(heights) - heights, heights)
    across = x[edge] + (line - y[edge]) * run[edge] / rise[edge]
    width = int(x.max()) + 1
    order = np.argsort(line * width + across, kind="stable")
    edge, line, across = edge[order], line[order], across[order]
    place = line * width + across
    entries = [int(np.lexsort((ring[:, 1], ring[:, 0]))[0]) for ring in rings]
    begins = [(*ring[entry].tolist(), number) for number, (ring, entry) in enumerate(zip(rings, entries, strict=True))]
    doors: _Doors = {}
    for left, level, hole in begins[1:]:
        last = int(np.searchsorted(place, level * width + left, side="right")) - 1
        while (ring := int(owner[edge[last]])) and begins[ring] >= begins[hole]:
            last -= 1  # only to the outline, or to holes that begin further left, so that no cuts go in a circle
        at = float(across[last])
        door = _Door(int(line[last]), int(at) if at.is_integer() else at, hole, entries[hole])
        doors.setdefault((ring, int(corner[edge[last]])), []).append(door)
    return doors


def _walk(ring: list[list[int]], number: int, first: int, doors: _Doors) -> Iterator[tuple[float, float] | _Door]:
    """Points (x, y) of a ring once around from a corner, with the doors where cuts begin."""
    for i in range(first, first + len(ring)):
        x, y = ring[i % len(ring)]
        yield x, y
        downwards = ring[(i + 1) % len(ring)][1] > y
        for door in sorted(doors.get((number, i % len(ring)), ()), reverse=not downwards):
            yield door.x, door.y
            yield door
            yield door.x, door.y
    x, y = ring[first]
    yield x, y
