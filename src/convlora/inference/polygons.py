"""Outlines of predicted classes on earth: GeoJSON and GeoPackage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convlora.data.extras import need
from convlora.data.scientific.geometry import RasterGeometry
from convlora.errors import OutputError
from convlora.files import output_errors, replacing
from convlora.inference.settings import POLYGONS

_PURPOSE = "writing polygons"
_BATCH = 20_000  # polygons that wait to be written together
_DRIVERS = dict(zip(POLYGONS, ("GeoJSON", "GPKG"), strict=True))


def write_polygons(
    path: Path, found: Iterable[tuple[int, Any]], geometry: RasterGeometry, names: Mapping[int, str]
) -> None:
    """Write outlines with the attributes `class_id` and `class`, whole or not at all.

    A GeoPackage keeps the raster's reference system; GeoJSON is in longitude and latitude (WGS 84) with seven decimals,
    as RFC 7946 wants.

    Args:
        path: Of the file; its suffix, .geojson or .gpkg, gives the format.
        found: Class ids and outlines, as `regions` gives them; some thousands are in memory at a time.
        geometry: Of the raster.
        names: Classes by id.

    Raises:
        OutputError: The file cannot be written, or the raster has no reference system.
        SettingsError: rasterio, shapely or pyogrio is missing.
    """
    shapely, raw = need("shapely", "geo", _PURPOSE), need("pyogrio.raw", "geo", _PURPOSE)
    errors = need("pyogrio.errors", "geo", _PURPOSE)
    if geometry.crs is None:
        raise OutputError(f"{geometry.path} says no reference system, so its outlines have no place on earth.")
    kind = path.suffix.removeprefix(".")
    options = {"layer_options": {"RFC7946": "YES"}} if kind == "geojson" else {}
    a, b, c, d, e, f = geometry.transform
    with output_errors(path), replacing(path) as temporary:
        written = temporary.with_name(temporary.name + path.suffix)  # the suffix is a part of the formats
        append = False
        try:
            for ids, shapes in _batches(found):
                placed = shapely.transform(
                    shapes, lambda p: np.column_stack([a * p[:, 0] + b * p[:, 1] + c, d * p[:, 0] + e * p[:, 1] + f])
                )
                raw.write(
                    written,
                    shapely.to_wkb(placed),
                    [np.array(ids, dtype=np.int32), np.array([names[i] for i in ids], dtype=object)],
                    ["class_id", "class"],
                    layer=path.stem,
                    driver=_DRIVERS[kind],
                    geometry_type="Polygon",
                    crs=geometry.crs,
                    append=append,
                    **options,
                )
                append, options = True, {}
            written.replace(temporary)
        except (errors.DataSourceError, errors.DataLayerError, errors.FeatureError, errors.GeometryError) as error:
            raise OutputError(f"cannot write {path}: {str(error).splitlines()[0].removesuffix('.')}.") from error
        finally:
            for left in temporary.parent.glob(f"{temporary.name}.*"):  # of GDAL's journals, too
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
