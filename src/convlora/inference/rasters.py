"""Masks of rasters with a place on earth: GeoTIFF files on the same grid."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from convlora.data.extras import need
from convlora.data.labels.colours import Colour
from convlora.data.scientific.geometry import RasterGeometry
from convlora.errors import OutputError
from convlora.files import output_errors, replacing

NO_DATA = 255
"""Value in masks where the raster holds no data; class ids are smaller."""
PRESENT = 1
"""Value of pixels of the class in a mask of one class: 255, as in PNG files, stands for no data here."""
_BLOCK = 512
_CACHE = 64  # MB of blocks; GDAL else keeps as many as fit into a twentieth of the machine's memory
_PURPOSE = "writing GeoTIFF"


def write_raster(
    path: Path,
    bands: Iterable[np.ndarray],
    geometry: RasterGeometry,
    *,
    dtype: str = "uint8",
    nodata: int | None = NO_DATA,
    description: str = "class id",
    names: Mapping[int, str] | None = None,
    colours: Mapping[int, Colour] | None = None,
) -> None:
    """Write a tiled, compressed GeoTIFF of one channel, whole or not at all.

    Args:
        path: Of the file.
        bands: Its rows (n, W) from top to bottom; few of them are in memory at a time.
        geometry: Gives size, reference system and transform.
        dtype: Of the values.
        nodata: Value that stands for no data; None if none does.
        description: Of the channel.
        names: Classes by value: a tag CLASS_0, CLASS_1, … each, and all as JSON in the tag CLASSES.
        colours: RGB by value, for the colour table of 8-bit values.

    Raises:
        OutputError: The file cannot be written.
        SettingsError: rasterio is missing.
    """
    rasterio = need("rasterio", "geo", _PURPOSE)
    profile = _profile(geometry) | {"dtype": dtype, "nodata": nodata}
    with output_errors(path), replacing(path) as temporary:
        try:
            # without a second file for what a GeoTIFF has no place for
            with (
                rasterio.Env(GDAL_PAM_ENABLED="NO", GDAL_CACHEMAX=_CACHE),
                rasterio.open(temporary, "w", **profile) as dataset,
            ):
                if colours is not None:  # before the pixels, which would else be written twice
                    dataset.write_colormap(1, {value: (*colour, 255) for value, colour in colours.items()})
                dataset.set_band_description(1, description)
                if names is not None:
                    dataset.update_tags(1, **{f"CLASS_{value}": name for value, name in names.items()})
                    dataset.update_tags(CLASSES=json.dumps(dict(names), ensure_ascii=False))
                written = _write(dataset, bands)
            with rasterio.Env(GDAL_CACHEMAX=_CACHE), rasterio.open(temporary, driver="GTiff") as dataset:
                same = _checksum(dataset) == written  # closing a file does not tell of errors
        except rasterio.errors.RasterioError as error:
            raise _unwritten(path) from error
        if not same:
            raise _unwritten(path)


def _unwritten(path: Path) -> OutputError:
    return OutputError(f"cannot write {path}: what was written is not what is read back; is the disk full?")


def _profile(geometry: RasterGeometry) -> dict[str, Any]:
    affine = need("rasterio.transform", "geo", _PURPOSE).Affine
    crs = need("rasterio.crs", "geo", _PURPOSE).CRS
    return {
        "driver": "GTiff",
        "height": geometry.size[0],
        "width": geometry.size[1],
        "count": 1,
        "crs": None if geometry.crs is None else crs.from_wkt(geometry.crs),
        "transform": affine(*geometry.transform),
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
    }


def _write(dataset: Any, bands: Iterable[np.ndarray]) -> int:
    """Write rows of blocks, each once; their checksum."""
    top = checksum = 0
    for rows in _of_height(bands, _BLOCK):
        dataset.write(rows, 1, window=((top, top + len(rows)), (0, dataset.width)))
        checksum = zlib.crc32(np.ascontiguousarray(rows).data, checksum)
        top += len(rows)
    if top != dataset.height:
        raise ValueError(f"{top} rows for a raster of {dataset.height}")
    return checksum


def _checksum(dataset: Any) -> int:
    checksum = 0
    for top in range(0, dataset.height, _BLOCK):
        window = ((top, min(top + _BLOCK, dataset.height)), (0, dataset.width))
        checksum = zlib.crc32(dataset.read(1, window=window), checksum)
    return checksum


def _of_height(bands: Iterable[np.ndarray], height: int) -> Iterator[np.ndarray]:
    """The same rows in bands of this height; the last may be lower."""
    kept: list[np.ndarray] = []
    for band in bands:
        kept.append(band)
        while (rows := sum(map(len, kept))) >= height:
            whole = np.concatenate(kept) if len(kept) > 1 else kept[0]
            yield np.ascontiguousarray(whole[:height])
            kept = [whole[height:]] if rows > height else []
    if kept:
        yield np.ascontiguousarray(np.concatenate(kept))
