"""GeoJSON: a file of polygons for each image.

For an image with a place on earth these are longitude and latitude, as RFC 7946 demands. For others they are pixels
from the upper left corner, x to the right and y downwards, which QuPath opens as annotations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from convlora.conversion.context import Conversion
from convlora.conversion.pictures import Found, Picture
from convlora.conversion.texts import put_json
from convlora.data.extras import need
from convlora.data.labels.colours import as_hex
from convlora.data.scientific.geometry import RasterGeometry, geometry_of
from convlora.errors import MaskError

Placing = Callable[[np.ndarray], np.ndarray]

_BEND = 0.02
"""Of a pixel: how far straight edges between written points may lie from the image's own."""
_DECIMALS = 9  # of degrees: a tenth of a millimetre


def write(pictures: Iterable[Picture], folder: Path, how: Conversion) -> list[str]:
    """Write NAME.geojson for each image: a feature an object.

    Raises:
        MaskError: An image's place on earth is beyond what degrees can say.
        SettingsError: An image has a place on earth, and rasterio is not installed.
    """
    plain = 0
    for picture in pictures:
        geometry = geometry_of(picture.image)
        placing = _on_earth(geometry) if isinstance(geometry, RasterGeometry) and geometry.crs else None
        plain += placing is None
        features = [_feature(found, how, placing) for found in picture.objects(how.options.objects)]
        put_json(folder / f"{picture.name}.geojson", {"type": "FeatureCollection", "features": features})
    return [f"{plain} images have no place on earth: coordinates are pixels, y downwards"] if plain else []


def _feature(found: Found, how: Conversion, placing: Placing | None) -> dict[str, Any]:
    name, colour = how.labels.classes[found.class_id], how.labels.palette[found.class_id]
    parts = [
        [_closed(ring, placing, outer=number == 0) for number, ring in enumerate(polygon.rings)]
        for polygon in how.outline(found)
    ]
    one = len(parts) == 1
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon" if one else "MultiPolygon", "coordinates": parts[0] if one else parts},
        "properties": {
            "class": name,
            "class_id": found.class_id,
            "pixels": found.area,
            "fill": as_hex(colour),
            "objectType": "annotation",
            "classification": {"name": name, "color": list(colour)},
        },
    }


def _closed(ring: np.ndarray, placing: Placing | None, *, outer: bool) -> list[list[float]]:
    """The points of a ring, the first again at the end; on earth anticlockwise, if it is an outer one."""
    points = ring if placing is None else placing(ring)
    if placing is not None:
        x, y = (points - points[0]).T
        area = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum()
        points = points if (area > 0) == outer else points[::-1]
    listed: list[list[float]] = points.tolist()
    return [*listed, listed[0]]


def _on_earth(geometry: RasterGeometry) -> Placing:
    """A function from pixels (n, 2) to longitude and latitude."""
    purpose = "writing places on earth"
    crs, warp = need("rasterio.crs", "geo", purpose).CRS, need("rasterio.warp", "geo", purpose)
    own, degrees = crs.from_wkt(geometry.crs), crs.from_epsg(4326)
    a, b, c, d, e, f = geometry.transform
    matrix, corner = np.array([[a, b], [d, e]]), np.array([c, f])

    def place(pixels: np.ndarray) -> np.ndarray:
        x, y = (pixels @ matrix.T + corner).T
        placed = np.column_stack(warp.transform(own, degrees, x, y))
        if not np.isfinite(placed).all():
            raise MaskError(f"{geometry.path}: a part of it has no longitude and latitude. Reproject it, or cut it.")
        if np.abs(np.diff(placed[:, 0])).max() > 180:
            raise MaskError(
                f"{geometry.path}: lies across 180° of longitude, where polygons would have to be cut. Cut it."
            )
        return placed

    def back(placed: np.ndarray) -> np.ndarray:
        x, y = warp.transform(degrees, own, *placed.T)
        pixels: np.ndarray = np.linalg.solve(matrix, np.array([x, y]) - corner[:, None]).T
        return pixels

    def ring(pixels: np.ndarray) -> np.ndarray:
        """Corners, and points between them where a straight edge would not be straight in degrees."""
        pixels = pixels.astype(float)
        while True:
            placed = place(pixels)
            middle, following = (pixels + np.roll(pixels, -1, axis=0)) / 2, np.roll(placed, -1, axis=0)
            bent = np.abs(back((placed + following) / 2) - middle).max(axis=1) > _BEND
            if not bent.any() or len(pixels) > 1e6:
                return np.round(placed, _DECIMALS)
            pixels = np.insert(pixels, np.flatnonzero(bent) + 1, middle[bent], axis=0)

    return ring
