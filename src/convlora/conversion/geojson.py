"""GeoJSON: a file of polygons for each image.

For an image with a place on earth these are longitude and latitude, as RFC 7946 demands. For others they are pixels
from the upper left corner, x to the right and y downwards, which QuPath opens as annotations.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from convlora.conversion.context import Conversion
from convlora.conversion.pictures import Found, Picture
from convlora.conversion.texts import put_json
from convlora.data.labels.colours import as_hex
from convlora.data.scientific.degrees import Placing, in_degrees
from convlora.data.scientific.geometry import RasterGeometry, geometry_of


def write(pictures: Iterable[Picture], folder: Path, how: Conversion) -> list[str]:
    """Write NAME.geojson for each image: a feature an object.

    Raises:
        MaskError: An image's place on earth is beyond what degrees can say.
        SettingsError: An image has a place on earth, and rasterio is not installed.
    """
    plain = 0
    for picture in pictures:
        geometry = geometry_of(picture.image)
        placing = in_degrees(geometry) if isinstance(geometry, RasterGeometry) and geometry.crs else None
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
    points = np.concatenate([ring, ring[:1]])
    if placing is not None:
        points, _ = placing(points, np.zeros(len(points), dtype=int))
        x, y = (points - points[0]).T
        area = (x[:-1] * y[1:] - x[1:] * y[:-1]).sum()
        points = points if (area > 0) == outer else points[::-1]
    listed: list[list[float]] = points.tolist()
    return listed
