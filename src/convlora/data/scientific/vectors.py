"""Outlines of classes on earth: GeoJSON, GeoPackage and shapefiles, burned into the raster of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convlora.data.extras import need
from convlora.data.pixels.decoding import require_allowed_size
from convlora.data.samples import first_few
from convlora.data.scientific.geotiff import GeoRaster
from convlora.data.scientific.stacks import quiet, reading
from convlora.data.settings import ImageLimits
from convlora.errors import MaskError

VECTOR_SUFFIXES = (".geojson", ".gpkg", ".shp", ".fgb")
_MAGICS = {".geojson": b"{", ".gpkg": b"SQLite format 3\0", ".shp": b"\0\0\x27\x0a", ".fgb": b"fgb"}
ATTRIBUTES = ("class", "class_id", "class_name", "label", "category", "type")
"""Names of the attribute of the class that are looked for, in this order, in lower or upper case."""
_MOST_FEATURES = 2_000_000
_PURPOSE = "reading outlines on earth"


@dataclass(frozen=True)
class VectorLayer:
    """The polygons of a file; equal to others of the same file."""

    path: Path
    crs: str | None
    """As WKT or an authority's code."""
    attribute: str | None
    """That holds the class; None if there is none, and all are of one class."""
    values: tuple[str, ...] = field(compare=False, repr=False)
    """Of the class attribute, of each polygon."""
    shapes: Any = field(compare=False, repr=False)
    """Polygons of shapely, an array."""
    left_out: int = field(default=0, compare=False)
    """Features that are no polygons."""


def read_layer(path: Path, attribute: str | None) -> VectorLayer:
    """Read the polygons of a file.

    Args:
        path: Of a suffix of `VECTOR_SUFFIXES`; with one layer.
        attribute: Name of the attribute of the class; None looks for one of `ATTRIBUTES`.

    Raises:
        MaskError: There is no such attribute, it is empty somewhere, or there are several layers.
        ImageError: Not readable.
        SettingsError: A library is not installed.
    """
    raw, shapely = need("pyogrio.raw", "geo", _PURPOSE), need("shapely", "geo", _PURPOSE)
    pyogrio = need("pyogrio", "geo", _PURPOSE)
    quiet("pyogrio")
    with reading(path, "outlines"):
        with path.open("rb") as stream:  # a driver of GDAL that fetches other files must not be found by the content
            beginning = stream.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")
        if not beginning.startswith(_MAGICS[path.suffix.lower()]):
            raise MaskError(f"{path}: its content is not that of a {path.suffix} file; export it again.")
        layers = pyogrio.list_layers(path)
        if len(layers) != 1:
            names = first_few(name for name, _ in layers)
            raise MaskError(f"{path}: holds {len(layers)} layers ({names}), not one; export the one to be used.")
        count = pyogrio.read_info(path, force_feature_count=True)["features"]
        if count > min(_MOST_FEATURES, path.stat().st_size):  # room is made for as many as the header says
            raise MaskError(f"{path}: says that it holds {count} outlines, which are too many; cut it up.")
        meta, _, blobs, columns = raw.read(path, force_2d=True)
        shapes = shapely.from_wkb(blobs, on_invalid="ignore")
        kinds = shapely.get_type_id(shapes)
        polygonal = np.isin(kinds, (3, 6)) & ~shapely.is_empty(shapes)  # Polygon, MultiPolygon
        fields = [str(name) for name in meta["fields"]]
        chosen = _attribute(path, fields, attribute)
        values = [] if chosen is None else [_text(value) for value in columns[fields.index(chosen)][polygonal]]
        if chosen is not None and (empty := sum(not value for value in values)):
            raise MaskError(f"{path}: {chosen} is empty in {empty} of {len(values)} polygons; fill it in.")
        _refuse_degrees_beyond(path, meta["crs"], shapely.total_bounds(shapes[polygonal]))
        texts = tuple(value or "" for value in values) or ("foreground",) * int(polygonal.sum())
        return VectorLayer(path, meta["crs"], chosen, texts, shapes[polygonal], int((~polygonal).sum()))


def _attribute(path: Path, names: list[str], wanted: str | None) -> str | None:
    if wanted is not None:
        if wanted not in names:
            raise MaskError(
                f"{path}: has no attribute {wanted!r} (--attribute); it has {first_few(names, 12) or 'none'}."
            )
        return wanted
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in ATTRIBUTES if name in lower), None)


def _refuse_degrees_beyond(path: Path, crs: str | None, bounds: np.ndarray) -> None:
    """Refuse metres that are called degrees: GeoJSON that names no reference system is in degrees."""
    if crs in ("EPSG:4326", "OGC:CRS84") and np.isfinite(bounds).all() and np.abs(bounds).max() > 360:
        raise MaskError(
            f"{path}: its coordinates go up to {np.abs(bounds).max():.0f}, which are no degrees, but it names no other "
            "reference system; name it in the file, or export the outlines in longitude and latitude."
        )


def _text(value: Any) -> str:
    """A class as text: 3 and 3.0 are the same."""
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


@dataclass(frozen=True)
class VectorMask:
    """The polygons of a layer in the pixels of a raster; a pixel is in a polygon if its centre is."""

    layer: VectorLayer
    raster: GeoRaster
    classes: tuple[str, ...]
    """Names by class id; the first is the background."""

    def __str__(self) -> str:
        return f"{self.layer.path} in {self.raster.path.name}"

    @property
    def path(self) -> Path:
        """The file of the outlines."""
        return self.layer.path

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """Class ids, int32 (H, W); where polygons overlap, the later one counts. Background if none is in the raster.

        Raises:
            ImageError: Beyond the limits.
            MaskError: The outlines name a reference system, and the raster none.
        """
        return self.read_window(0, 0, *self.raster.size, limits)

    def read_window(self, top: int, left: int, height: int, width: int, limits: ImageLimits) -> np.ndarray:
        """The class ids of a part of it, int32 (h, w); see `read_mask`."""
        features = need("rasterio.features", "geo", _PURPOSE)
        affine = need("rasterio.transform", "geo", _PURPOSE).Affine
        require_allowed_size(self.raster.path, height, width, limits)
        a, b, c, d, e, f = self.raster.transform
        there = (a, b, a * left + b * top + c, d, e, d * left + e * top + f)
        ids = {name: number for number, name in enumerate(self.classes)}
        with reading(self.path, "outlines"):
            shapes, chosen = self._near(_bounds(there, (height, width)))
            burned = [(shape, ids[self.layer.values[i]]) for shape, i in zip(shapes, chosen, strict=True)]
            if not burned:
                return np.zeros((height, width), dtype=np.int32)
            return features.rasterize(burned, out_shape=(height, width), transform=affine(*there), dtype="int32")

    def _near(self, box: tuple[float, float, float, float]) -> tuple[Any, list[int]]:
        """Polygons that touch a box, in the raster's coordinates, and their numbers."""
        shapely = need("shapely", "geo", _PURPOSE)
        shapes = self.layer.shapes
        if not len(shapes):
            return shapes, []
        systems = _systems(self.layer, self.raster)
        if systems is not None:
            warp = need("rasterio.warp", "geo", _PURPOSE)
            there = shapely.box(*warp.transform_bounds(*reversed(systems), *box, densify_pts=21))
            margin = 0.1 * max(there.bounds[2] - there.bounds[0], there.bounds[3] - there.bounds[1])
            candidates = np.flatnonzero(shapely.intersects(shapes, there.buffer(margin)))
            shapes = shapely.transform(shapes[candidates], lambda points: _moved(points, *systems))
        else:
            candidates = np.arange(len(shapes))
        near = np.flatnonzero(shapely.intersects(shapes, shapely.box(*box)))
        return shapes[near], candidates[near].tolist()


def _bounds(
    transform: tuple[float, float, float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Smallest and largest x and y of pixels (H, W)."""
    a, b, c, d, e, f = transform
    height, width = size
    corners = [(a * x + b * y + c, d * x + e * y + f) for x in (0, width) for y in (0, height)]
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _systems(layer: VectorLayer, raster: GeoRaster) -> tuple[Any, Any] | None:
    """Reference systems of outlines and raster; None if they are equal. Outlines without one are in the raster's."""
    if layer.crs is None:
        return None
    if raster.crs is None:
        raise MaskError(
            f"{layer.path}: is in {layer.crs[:60]}, but its image {raster.path} says no reference system; "
            "give the image one, or save the outlines without one."
        )
    crs = need("rasterio.crs", "geo", _PURPOSE).CRS
    source, target = crs.from_user_input(layer.crs), crs.from_user_input(raster.crs)
    return None if source == target else (source, target)


def _moved(points: np.ndarray, source: Any, target: Any) -> np.ndarray:
    """Points (n, 2) in another reference system; those that it does not know are NaN."""
    xs, ys = need("rasterio.warp", "geo", _PURPOSE).transform(source, target, points[:, 0], points[:, 1])
    moved = np.column_stack([xs, ys])
    moved[~np.isfinite(moved)] = np.nan
    return moved


def layer_classes(layers: Sequence[VectorLayer]) -> tuple[str, ...]:
    """Names by class id: the background, and all values found, whole numbers first, by size, then names."""
    found = {value for layer in layers for value in layer.values}
    ordered = sorted(found, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
    return ("background", *(name for name in ordered if name != "background"))
