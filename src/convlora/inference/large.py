"""Rasters of more pixels than are held in memory: which they are, and from their windows to their files."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convlora import __version__
from convlora.adapter.saving import MANIFEST_FILE
from convlora.data.samples import Sample, first_few
from convlora.data.scientific.geotiff import GeoImage
from convlora.errors import ImageError, SettingsError
from convlora.files import fsync, output_errors, sha256
from convlora.inference.georeferenced import write_georeferenced
from convlora.inference.output import ImageFiles
from convlora.inference.predictor import Predictor, adapter_folder
from convlora.inference.settings import PredictSettings
from convlora.inference.streaming import count_tiles, predict_bands


def is_large(sample: Sample, settings: PredictSettings) -> bool:
    """Whether a sample is a raster of more than `max_megapixels`; windows of other images cannot be read."""
    image = sample.image
    return isinstance(image, GeoImage) and image.stack.size[0] * image.stack.size[1] > settings.max_megapixels * 1e6


def refuse_large(large: Sequence[Sample], settings: PredictSettings, predictor: Predictor) -> None:
    """Raise a `SettingsError` if there are large rasters, and they cannot be predicted as the settings say."""
    if not large:
        return
    which = f"{first_few(sample.name for sample in large)}: more than the {settings.max_megapixels:g} megapixels "
    which += "that are segmented in memory (--max_megapixels)"
    tile = predictor.processor.tile
    if tile is None:
        raise SettingsError(
            f"{which}, and the run knows no tiles. Give --tile, the side in pixels of what is segmented at a time; "
            f"with {predictor.processor.size} pixels are seen as they are, with more they are made smaller."
        )
    if settings.overlays or settings.probabilities:
        raise SettingsError(
            f"{which}. Of these, --overlays and --probabilities are not written; leave them out. Masks have a table of "
            "the classes' colours, in which a GIS shows them over the raster."
        )
    if tile**2 > settings.max_megapixels * 1e6:
        raise SettingsError(f"{which}, and so is a tile of {tile} x {tile} pixels; give a smaller --tile.")


def predict_large(
    predictor: Predictor,
    sample: Sample,
    files: ImageFiles,
    settings: PredictSettings,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Predict a large raster into its files, or continue that where it was stopped.

    Finished rows of tiles, and files that are being written, are in the hidden folder `.NAME.bands` of the output
    folder until the files are there, so that nothing else remains of a process that is killed.

    Args:
        predictor: Of the run.
        sample: The raster.
        files: Names of its files.
        settings: Of the prediction.
        progress: Called with the number of tiles done and of all.

    Returns:
        What is wrong with the raster, if it cannot be read.
    """
    image, processor = sample.image, predictor.processor
    if not isinstance(image, GeoImage) or processor.tile is None:
        raise TypeError("only rasters are predicted in windows, and only with a tile")
    rows, columns = count_tiles(image.stack.size, processor.tile, processor.overlap)
    done = 0

    def count(tiles: int) -> None:
        nonlocal done
        done += tiles
        progress(done, rows * columns)

    output, folder = Path(settings.output), _bands_folder(sample, settings)
    about = _about(predictor, image, settings)
    try:
        bands = predict_bands(predictor, image, folder, about, batch_size=settings.batch_size, count=count)
    except ImageError as error:
        return [str(error).removesuffix(".")]
    within = dataclasses.replace(settings, output=str(folder))
    write_georeferenced(predictor, within, files, bands, image.stack.geometry(image.index))
    with output_errors(output):
        for file in files:
            (folder / file).replace(output / file)
        fsync(output)
    discard_bands(sample, settings)
    return []


def discard_bands(sample: Sample, settings: PredictSettings) -> None:
    """Remove the rows of tiles of a raster that is predicted, if there are any."""
    shutil.rmtree(_bands_folder(sample, settings), ignore_errors=True)


def _bands_folder(sample: Sample, settings: PredictSettings) -> Path:
    return Path(settings.output) / f".{sample.name}.bands"


def _about(predictor: Predictor, image: GeoImage, settings: PredictSettings) -> dict[str, Any]:
    """What the classes of a raster's pixels depend on, but for the last bits of its numbers."""
    status = image.path.stat()
    return {
        "raster": [str(image.path.absolute()), status.st_size, status.st_mtime_ns],
        "intensity": image.intensity,
        "adapter": sha256(adapter_folder(Path(settings.run)) / MANIFEST_FILE),
        "model": settings.model,
        "processor": predictor.processor.settings(),
        "precision": predictor.precision,
        "device": predictor.device.type,
        "version": __version__,
    }
