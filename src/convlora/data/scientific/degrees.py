"""From pixels of a raster to longitude and latitude."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convlora.data.extras import need
from convlora.data.scientific.geometry import RasterGeometry
from convlora.errors import MaskError

Placing = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Points (n, 2) in columns and rows and the ring of each, (n,), to longitude and latitude and the ring of each.

The points of a ring follow each other, the last is the first again. There may be more of them than before."""

_BEND = 0.02
"""Of a pixel: how far straight edges between the points may lie from the raster's own."""
_MOST_HALVINGS = 12
_DECIMALS = 9  # of degrees: a tenth of a millimetre


def in_degrees(geometry: RasterGeometry) -> Placing:
    """A function that gives longitude and latitude on WGS 84, with 9 decimals, of rings of points.

    Points are added where an edge that is straight in the raster is not so in degrees. The function raises a
    `MaskError` for points that have no longitude and latitude, and for rings across 180° of longitude.

    Raises:
        MaskError: The raster's transform gives many pixels one place.
        SettingsError: rasterio is missing.
        ValueError: The raster has no reference system.
    """
    purpose = "writing places on earth"
    crs, warp = need("rasterio.crs", "geo", purpose).CRS, need("rasterio.warp", "geo", purpose)
    if geometry.crs is None:
        raise ValueError("a raster without a reference system lies nowhere on earth")
    nowhere = MaskError(f"{geometry.path}: a part of it has no longitude and latitude. Reproject it, or cut it.")
    own, degrees = crs.from_wkt(geometry.crs), crs.from_epsg(4326)
    a, b, c, d, e, f = geometry.transform
    matrix, corner = np.array([[a, b], [d, e]]), np.array([c, f])
    if not np.isfinite([*geometry.transform]).all() or a * e == b * d:
        raise MaskError(f"{geometry.path}: its transform {geometry.transform} does not give each pixel its own place.")

    def transformed(source: Any, target: Any, points: np.ndarray) -> np.ndarray:
        try:
            placed = np.column_stack(warp.transform(source, target, *points.T))
        except Exception as error:  # of GDAL, whose classes are not public
            raise nowhere from error
        if not np.isfinite(placed).all():
            raise nowhere
        return placed

    def place(pixels: np.ndarray, rings: np.ndarray) -> np.ndarray:
        placed, edges = transformed(own, degrees, pixels @ matrix.T + corner), _edges(rings)
        if (np.abs(placed[edges + 1, 0] - placed[edges, 0]) > 180).any():
            raise MaskError(
                f"{geometry.path}: lies across 180° of longitude, where polygons would have to be cut. Cut it."
            )
        return placed

    def back(placed: np.ndarray) -> np.ndarray:
        pixels: np.ndarray = np.linalg.solve(matrix, (transformed(degrees, own, placed) - corner).T).T
        return pixels

    def of_rings(pixels: np.ndarray, rings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = pixels.astype(np.float64)
        for _ in range(_MOST_HALVINGS):
            placed, edges = place(pixels, rings), _edges(rings)
            middles = (pixels[edges] + pixels[edges + 1]) / 2
            bent = np.abs(back((placed[edges] + placed[edges + 1]) / 2) - middles).max(axis=1) > _BEND
            if not bent.any():
                break
            at = edges[bent] + 1
            pixels, rings = np.insert(pixels, at, middles[bent], axis=0), np.insert(rings, at, rings[at])
        else:
            placed = place(pixels, rings)
        return np.round(placed, _DECIMALS), rings

    return of_rings


def _edges(rings: np.ndarray) -> np.ndarray:
    """Numbers of the points that have a next one in their ring."""
    return np.flatnonzero(rings[1:] == rings[:-1])
