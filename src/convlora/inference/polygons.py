"""Outlines of predicted classes on earth: GeoJSON and GeoPackage."""

from __future__ import annotations

import glob
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convlora.data.extras import need
from convlora.data.scientific.degrees import Placing, in_degrees
from convlora.data.scientific.geometry import RasterGeometry
from convlora.errors import OutputError
from convlora.files import output_errors, replacing

_PURPOSE = "writing polygons"
_BATCH = 20_000  # polygons that wait to be written together
Batches = Iterable[tuple[list[int], list[Any]]]
"""Class ids and polygons of shapely in columns and rows, some of them at a time."""


def write_polygons(
    path: Path, found: Iterable[tuple[int, Any]], geometry: RasterGeometry, names: Mapping[int, str]
) -> None:
    """Write outlines with the attributes `class_id` and `class`, whole or not at all.

    A GeoPackage keeps the raster's reference system; GeoJSON is in longitude and latitude (WGS 84) with nine decimals,
    as RFC 7946 wants.

    Args:
        path: Of the file; its suffix, .geojson or .gpkg, gives the format.
        found: Class ids and outlines, as `regions` gives them; some thousands are in memory at a time.
        geometry: Of the raster.
        names: Classes by id.

    Raises:
        OutputError: The file cannot be written, or the raster has no reference system.
        MaskError: For GeoJSON: a part of the raster has no longitude and latitude.
        SettingsError: rasterio, shapely or pyogrio is missing.
    """
    if geometry.crs is None:
        raise OutputError(f"{geometry.path} says no reference system, so its outlines have no place on earth.")
    write = {".geojson": _write_geojson, ".gpkg": _write_geopackage}[path.suffix]
    with output_errors(path), replacing(path) as temporary:
        write(temporary, path.stem, _batches(found), geometry, names)


def _write_geojson(path: Path, _: str, batches: Batches, geometry: RasterGeometry, names: Mapping[int, str]) -> None:
    # by hand, because GDAL does not reproject what it appends, and holds all that it does not append in memory
    shapely, place = need("shapely", "geo", _PURPOSE), in_degrees(geometry)
    between = ""
    with path.open("w", encoding="utf-8") as stream:
        stream.write('{"type": "FeatureCollection", "features": [')
        for ids, shapes in batches:
            placed = shapely.to_geojson(_placed(shapely, shapes, place)) if ids else []
            for class_id, shape in zip(ids, placed, strict=True):
                about = json.dumps({"class_id": class_id, "class": names[class_id]}, ensure_ascii=False)
                stream.write(f'{between}\n{{"type": "Feature", "properties": {about}, "geometry": {shape}}}')
                between = ","
        stream.write("\n]}\n")


def _placed(shapely: Any, shapes: Sequence[Any], place: Placing) -> Any:
    """Polygons in longitude and latitude, outer rings anticlockwise and holes clockwise."""
    rings, polygons = shapely.get_rings(shapes, return_index=True)
    points, ring_of_point = place(*shapely.get_coordinates(rings, return_index=True))
    rings = shapely.linearrings(points, indices=ring_of_point)
    outer = np.diff(polygons, prepend=-1) != 0
    turned = shapely.is_ccw(rings) != outer
    rings[turned] = shapely.reverse(rings[turned])
    return shapely.polygons(rings, indices=polygons)


def _write_geopackage(
    path: Path, layer: str, batches: Batches, geometry: RasterGeometry, names: Mapping[int, str]
) -> None:
    shapely, raw = need("shapely", "geo", _PURPOSE), need("pyogrio.raw", "geo", _PURPOSE)
    errors = need("pyogrio.errors", "geo", _PURPOSE)
    a, b, c, d, e, f = geometry.transform
    written = path.with_name(f"{path.name}.gpkg")  # the suffix is a part of the format
    append = False
    try:
        for ids, shapes in batches:
            placed = shapely.transform(
                shapes, lambda p: np.column_stack([a * p[:, 0] + b * p[:, 1] + c, d * p[:, 0] + e * p[:, 1] + f])
            )
            raw.write(
                written,
                shapely.to_wkb(placed),
                [np.array(ids, dtype=np.int32), np.array([names[i] for i in ids], dtype=object)],
                ["class_id", "class"],
                layer=layer,
                driver="GPKG",
                geometry_type="Polygon",
                crs=geometry.crs,
                append=append,
            )
            append = True
        written.replace(path)
    except (errors.DataSourceError, errors.DataLayerError, errors.FeatureError, errors.GeometryError) as error:
        raise OutputError(f"cannot write {layer}.gpkg: {str(error).splitlines()[0].removesuffix('.')}.") from error
    finally:
        for left in path.parent.glob(f"{glob.escape(path.name)}.*"):  # of GDAL's journals, too
            left.unlink(missing_ok=True)


def regions(bands: Iterable[np.ndarray], nodata: int) -> Iterator[tuple[int, Any]]:
    """Class and outline of every region of pixels of one class that are connected by their sides.

    Args:
        bands: Class ids (n, W) uint8 from top to bottom; class 0 has no outlines. In memory are one band and the
            outlines that reach from it into the next.
        nodata: Value where there are no data.

    Yields:
        Class ids and polygons of shapely, in columns and rows from the top left corner; ids are in no special order.
    """
    shapely, features = need("shapely", "geo", _PURPOSE), need("rasterio.features", "geo", _PURPOSE)
    affine = need("rasterio.transform", "geo", _PURPOSE).Affine
    open_: dict[int, list[Any]] = {}  # by class: regions that reach the lower side of what was seen
    top = 0
    for band in bands:
        bottom = top + len(band)
        upper: dict[int, list[Any]] = defaultdict(list, open_)
        open_ = defaultdict(list)
        inside = (band != 0) & (band != nodata)
        for outline, value in features.shapes(band, mask=inside, transform=affine.translation(0, top)):
            region = shapely.Polygon(outline["coordinates"][0], outline["coordinates"][1:])
            _, first, _, last = region.bounds
            if first == top > 0:
                upper[int(value)].append(region)
            elif last == bottom:
                open_[int(value)].append(region)
            else:
                yield int(value), region
        for value, parts in upper.items():
            # corners are whole numbers, so that the union is exact; what touches at corners alone stays apart
            for region in shapely.get_parts(shapely.simplify(shapely.union_all(parts), 0)):
                if region.bounds[3] == bottom:
                    open_[value].append(region)
                else:
                    yield value, region
        top = bottom
    for value, parts in open_.items():
        for region in parts:
            yield value, region


def _batches(found: Iterable[tuple[int, Any]]) -> Iterator[tuple[list[int], list[Any]]]:
    """At least one batch, which may be empty."""
    ids: list[int] = []
    shapes: list[Any] = []
    first = True
    for value, region in found:
        ids.append(value)
        shapes.append(region)
        if len(ids) == _BATCH:
            yield ids, shapes
            ids, shapes, first = [], [], False
    if ids or first:
        yield ids, shapes
