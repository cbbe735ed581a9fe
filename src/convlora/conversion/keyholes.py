"""Polygons with holes as one ring, for formats that know no holes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from convlora.conversion.outlines import Polygon

_Doors: TypeAlias = dict[tuple[int, int], list[tuple[int, int, int]]]


def one_ring(polygon: Polygon) -> np.ndarray:
    """(n, 2) corners of one ring that goes into every hole and back by the same way, a cut of no width.

    A cut starts at the leftmost corner of a hole and runs left, along pixel edges, to the next ring. It is passed
    twice in opposite directions, so the even-odd rule and the nonzero rule both fill what the polygon covers. Holes
    that touch what they are cut to need no way.
    """
    if not polygon.holes:
        return polygon.outer
    rings, doors = [ring.tolist() for ring in polygon.rings], _doors(polygon.rings)
    points: list[tuple[int, ...]] = []
    waiting = [_walk(rings[0], 0, 0, doors)]
    while waiting:  # not recursion: cuts may lead from hole to hole by the thousand
        step = next(waiting[-1], None)
        if step is None:
            waiting.pop()
        elif len(step) == 3:
            _, hole, corner = step
            waiting.append(_walk(rings[hole], hole, corner, doors))
        elif not points or points[-1] != step:
            points.append(step)
    if points[0] == points[-1]:
        points.pop()
    return np.array(points)


def _doors(rings: list[np.ndarray]) -> _Doors:
    """Where cuts begin: by ring and corner that starts the edge, (y, hole, its corner) of each cut."""
    start = np.concatenate(rings)
    end = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    corner = np.concatenate([np.arange(len(ring)) for ring in rings])
    upright = np.flatnonzero(start[:, 0] == end[:, 0])
    top = np.minimum(start[upright, 1], end[upright, 1])
    heights = np.abs(end[upright, 1] - start[upright, 1]) + 1
    # every upright edge once for each line between rows that it reaches, ordered by line and x
    edge = np.repeat(upright, heights)
    line = np.repeat(top, heights) + np.arange(len(edge)) - np.repeat(np.cumsum(heights) - heights, heights)
    width = int(start[:, 0].max()) + 1
    place = line * width + start[edge, 0]
    order = np.argsort(place, kind="stable")
    place, edge = place[order], edge[order]
    doors: _Doors = {}
    for number, hole in enumerate(rings[1:], 1):
        entry = int(np.lexsort((hole[:, 1], hole[:, 0]))[0])
        x, y = hole[entry]
        last = int(np.searchsorted(place, y * width + x, side="right")) - 1
        met = edge[last] if owner[edge[last]] != number else edge[last - 1]
        doors.setdefault((int(owner[met]), int(corner[met])), []).append((int(y), number, entry))
    return doors


def _walk(ring: list[list[int]], number: int, first: int, doors: _Doors) -> Iterator[tuple[int, ...]]:
    """Points (x, y) of a ring once around from a corner, with (y, hole, its corner) where a cut begins."""
    for i in range(first, first + len(ring)):
        x, y = ring[i % len(ring)]
        yield x, y
        downwards = ring[(i + 1) % len(ring)][1] > y
        for door in sorted(doors.get((number, i % len(ring)), ()), reverse=not downwards):
            yield x, door[0]
            yield door
            yield x, door[0]
    yield tuple(ring[first])
