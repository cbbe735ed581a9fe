"""The files that are written for a raster with a place on earth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from convlora.data.labels.bits import IGNORED, unpack
from convlora.data.samples import Sample, first_few
from convlora.data.scientific.degrees import in_degrees
from convlora.data.scientific.geometry import RasterGeometry, geometry_of
from convlora.data.scientific.geotiff import GeoImage
from convlora.errors import MaskError, SettingsError
from convlora.inference.output import ImageFiles
from convlora.inference.polygons import regions, write_polygons
from convlora.inference.predictor import Predictor
from convlora.inference.rasters import NO_DATA, PRESENT, write_raster
from convlora.inference.settings import PredictSettings

Bands = Callable[[], Iterator[np.ndarray]]
"""Gives the rows (n, W) of a mask from top to bottom, each time anew: class ids uint8 with `NO_DATA`; of a multilabel
predictor bit fields int32 with `IGNORED` where there are no data."""

_ROWS = 1024


def raster_geometry(sample: Sample) -> RasterGeometry | None:
    """The place on earth of a sample's image; None if it has none."""
    geometry = geometry_of(sample.image)
    return geometry if isinstance(geometry, RasterGeometry) else None


def refuse_polygons(samples: Sequence[Sample], polygons: str | None) -> None:
    """Raise a `SettingsError` if polygons are wanted of images that have no place on earth, or none for GeoJSON."""
    if polygons is None:
        return
    geometries = {sample.name: raster_geometry(sample) for sample in samples}
    without = [name for name, geometry in geometries.items() if geometry is None or geometry.crs is None]
    if without:
        raise SettingsError(
            f"polygons={polygons!r} is for GeoTIFF images that say their reference system, which {len(without)} of "
            f"{len(samples)} do not ({first_few(without)}). Leave it out, or give others."
        )
    for geometry in geometries.values():
        if geometry is not None and polygons == "geojson":
            _refuse_without_degrees(geometry)


def _refuse_without_degrees(geometry: RasterGeometry) -> None:
    height, width = geometry.size
    around = np.array([[0, 0], [0, height], [width, height], [width, 0], [0, 0]])
    try:
        in_degrees(geometry)(around, np.zeros(len(around), dtype=int))
    except MaskError as error:
        raise SettingsError(f"{error} GeoJSON is in degrees; polygons='gpkg' is not.") from error


def mark_no_data(sample: Sample, ids: np.ndarray, probabilities: Sequence[np.ndarray]) -> None:
    """Where a sample's raster holds no data, make ids (H, W) `NO_DATA`, bit fields `IGNORED`, and probabilities 0."""
    image = sample.image
    valid = image.valid(0, 0, *image.stack.size) if isinstance(image, GeoImage) else None
    if valid is not None:
        ids[~valid] = no_data_of(ids)
        for probability in probabilities:
            probability[~valid] = 0


def no_data_of(ids: np.ndarray) -> int:
    """Stands for no data among class ids (uint8) or bit fields (int32)."""
    return NO_DATA if ids.dtype == np.uint8 else IGNORED


def in_bands(ids: np.ndarray) -> Bands:
    """A mask in memory, (H, W) class ids or bit fields, as bands."""
    return lambda: (ids[top : top + _ROWS] for top in range(0, len(ids), _ROWS))


def write_georeferenced(
    predictor: Predictor, settings: PredictSettings, files: ImageFiles, bands: Bands, geometry: RasterGeometry
) -> None:
    """Write the polygons, if they are wanted, and then the masks of one raster.

    Args:
        predictor: What made the masks.
        settings: Say where.
        files: Their names.
        bands: The masks.
        geometry: Of the raster.
    """
    output, names, colours = Path(settings.output), predictor.id2label, predictor.colours
    layers: dict[int, Bands] = {0: bands}
    if predictor.multilabel:
        layers = {class_id: _of_class(bands, class_id) for class_id in names if class_id}
    if files.polygons is not None:
        found: Iterator[tuple[int, Any]] = chain.from_iterable(
            ((class_id or value, region) for value, region in regions(layer(), NO_DATA))
            for class_id, layer in layers.items()
        )
        write_polygons(output / files.polygons, found, geometry, names)
    for file, (class_id, layer) in zip(files.masks, layers.items(), strict=True):
        if class_id == 0:
            write_raster(output / file, layer(), geometry, names=names, colours=colours)
        else:
            own = {"names": {PRESENT: names[class_id]}, "colours": {0: (0, 0, 0), PRESENT: colours[class_id]}}
            write_raster(output / file, layer(), geometry, description=names[class_id], **own)  # type: ignore[arg-type]


def write_probabilities(
    predictor: Predictor,
    settings: PredictSettings,
    files: ImageFiles,
    probabilities: Sequence[np.ndarray],
    geometry: RasterGeometry,
) -> None:
    """Write the probability of each class but the background, if wanted, uint16 (H, W), on the raster's grid."""
    for class_id, (file, values) in enumerate(zip(files.probabilities, probabilities, strict=True), 1):
        about = f"probability of {predictor.id2label[class_id]} / 65535"
        write_raster(Path(settings.output) / file, [values], geometry, dtype="uint16", nodata=None, description=about)


def _of_class(bands: Bands, class_id: int) -> Bands:
    """The masks of one class among bit fields: `PRESENT`, 0 or `NO_DATA`."""

    def of_class() -> Iterator[np.ndarray]:
        for band in bands():
            inside = unpack(band, class_id) * np.uint8(PRESENT)
            inside[band == IGNORED] = NO_DATA
            yield inside

    return of_class
