"""Predict a folder of images into a folder of masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from convlora.data.pixels.channels import image_suffixes, read_pixels
from convlora.data.pixels.display import visible_rgb
from convlora.data.pixels.images import ImageLimits
from convlora.data.readers.pairing import Sample, find_images
from convlora.data.samples import first_few
from convlora.data.scientific.expanding import Reading
from convlora.errors import ImageError
from convlora.files import output_errors, replacing
from convlora.inference.drawing import overlay
from convlora.inference.georeferenced import (
    in_bands,
    mark_no_data,
    no_data_of,
    raster_geometry,
    refuse_polygons,
    write_georeferenced,
    write_probabilities,
)
from convlora.inference.large import discard_bands, is_large, predict_large, refuse_large
from convlora.inference.masks import mask_pictures
from convlora.inference.output import ImageFiles, class_parts, image_files, present_files, refuse_clashes
from convlora.inference.pipeline import WriteBehind, queue_length, read_ahead, thread_pool
from convlora.inference.predictor import Predictor
from convlora.inference.settings import PredictSettings


def predict_folder(
    settings: PredictSettings,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    progress_windows: Callable[[int, int], None] = lambda done, total: None,
    rank: int = 0,
    world: int = 1,
) -> list[Path]:
    """Write a mask for each image; return the masks' paths.

    Images are read and masks are written in threads while others are segmented; about five batches (of small batches:
    about ten images) are in memory. Each file appears whole or not at all, and a mask only after its overlay and
    probabilities, so that `skip_existing` continues exactly. Rasters that are too large for that come last, in windows:
    see `convlora.inference.large`.

    Args:
        settings: Everything about the prediction.
        progress: Called with the number of images done and of all.
        progress_windows: Called with the numbers of windows of the large raster that is being predicted.
        rank: Number of this process, from 0, among those that share the work; each calls this function with the
            same settings.
        world: Number of these processes. This one takes every `world`-th image, and counts, names and returns only
            these.

    Raises:
        PairingError: There are no images, or two of them would be written to the same file.
        ImageError: Some images could not be read; the others were predicted. The message names them.
        OutputError: The output folder is not empty (without `skip_existing`; what the other processes may have written
            by now does not count), not writable, or holds the images.
        WeightsError: Of the run folder.
    """
    predictor = _load(settings)
    samples = _find(settings, predictor)
    mine, others = samples[rank::world], [s for i, s in enumerate(samples) if i % world != rank]
    output = Path(settings.output)
    refuse_polygons(samples, settings.polygons)
    files = _files(settings, predictor, samples)
    large = dict.fromkeys(sample for sample in samples if is_large(sample, settings))
    refuse_large(list(large), settings, predictor)
    elsewhere = {file for sample in others for file in files[sample.name]}
    present = present_files(output, samples, elsewhere, skip_existing=settings.skip_existing)
    refuse_clashes(files)
    todo = [sample for sample in mine if not present.issuperset(files[sample.name])]
    with output_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    done = len(mine) - len(todo)
    progress(done, len(mine))

    def count_one() -> None:
        nonlocal done
        done += 1
        progress(done, len(mine))

    failed = _predict(predictor, [sample for sample in todo if sample not in large], files, settings, count_one)
    for sample in [sample for sample in mine if sample in large]:
        if sample in todo:
            failed += predict_large(predictor, sample, files[sample.name], settings, progress_windows)
            count_one()
        else:
            discard_bands(sample, settings)  # of a process that was killed just before that
    if failed:
        raise ImageError(
            f"{len(failed)} of {len(mine)} images were left out, the others were predicted: {first_few(failed)}."
        )
    return [output / files[sample.name].masks[-1] for sample in mine]


def _load(settings: PredictSettings) -> Predictor:
    return Predictor.from_folder(
        settings.run,
        model=settings.model,
        device=settings.device,
        precision=settings.precision,
        tile=settings.tile,
        overlap=settings.overlap,
    )


def _find(settings: PredictSettings, predictor: Predictor) -> list[Sample]:
    """The images, to be read as those of the training were, unless told otherwise."""
    channels = predictor.processor.channels
    how = Reading(
        limits=ImageLimits(int(settings.max_megapixels * 1e6)),
        intensity=settings.intensity or predictor.processor.intensity,
        volume=settings.volume,
        channels=channels,
    )
    return find_images(settings.images, image_suffixes(channels), how)


def _files(settings: PredictSettings, predictor: Predictor, samples: Sequence[Sample]) -> dict[str, ImageFiles]:
    """What is written for each image, by name of the sample."""
    parts = class_parts(predictor.id2label) if predictor.multilabel else []
    suffixes = {sample.name: ".tif" if raster_geometry(sample) else ".png" for sample in samples}
    classes = len(predictor.id2label)
    return {name: image_files(name, settings, classes, parts, suffix=suffix) for name, suffix in suffixes.items()}


def _predict(
    predictor: Predictor,
    samples: Sequence[Sample],
    files: dict[str, ImageFiles],
    settings: PredictSettings,
    count_one: Callable[[], None],
) -> list[str]:
    """Segment and write; return what is wrong with the images that could not be read."""
    limits = ImageLimits(int(settings.max_megapixels * 1e6))
    length = queue_length(settings.batch_size)
    failed: list[str] = []

    def read(sample: Sample) -> np.ndarray | ImageError:
        try:
            return read_pixels(sample.image, limits, predictor.processor.channels)
        except ImageError as error:
            return error

    def segment_batch(futures: Iterable[tuple[Sample, Future[np.ndarray | ImageError]]]) -> bool:
        """Segment the next batch and hand it to the writers; False if there is none. Here, so that its images go."""
        taken = [(sample, future.result()) for sample, future in futures]
        failed.extend(str(image).removesuffix(".") for _, image in taken if isinstance(image, ImageError))
        batch = [(sample, image) for sample, image in taken if isinstance(image, np.ndarray)]
        logits = predictor.logits([image for _, image in batch]) if batch else []
        for (sample, image), one in zip(batch, logits, strict=True):
            ids, probabilities = _answers(predictor, one, with_probabilities=settings.probabilities)
            drawn_on = visible_rgb(image, predictor.processor.display_channels) if settings.overlays else None
            writing.add(_write, predictor, settings, sample, files[sample.name], ids, probabilities, drawn_on)
        for _ in range(len(taken) - len(batch)):
            count_one()
        return bool(taken)

    with thread_pool() as readers, thread_pool() as writers:
        writing = WriteBehind(writers, length, count_one)
        reading = read_ahead(readers, read, samples, length)
        while segment_batch(islice(reading, settings.batch_size)):
            pass
        writing.flush()
    return failed


def _answers(
    predictor: Predictor, logits: torch.Tensor, *, with_probabilities: bool
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Class ids or bit fields (H, W) and, if wanted, uint16 probabilities of each class but the background."""
    ids = predictor.processor.classes_of(logits).numpy().astype(np.int32 if predictor.multilabel else np.uint8)
    if not with_probabilities:
        return ids, []
    probabilities = predictor.processor.probabilities_of(logits)[1:]
    return ids, list((probabilities.numpy() * 65535 + 0.5).astype(np.uint16))


def _write(
    predictor: Predictor,
    settings: PredictSettings,
    sample: Sample,
    files: ImageFiles,
    ids: np.ndarray,
    probabilities: list[np.ndarray],
    image: np.ndarray | None,
) -> None:
    """Write the files of one image, the mask last; an overlay if its image is given."""
    geometry, output = raster_geometry(sample), Path(settings.output)
    colours, multilabel = predictor.colours, predictor.multilabel
    if geometry is not None:
        mark_no_data(sample, ids, probabilities)
        write_probabilities(predictor, settings, files, probabilities, geometry)
    else:
        for file, probability in zip(files.probabilities, probabilities, strict=True):
            _save(output / file, Image.fromarray(probability))
    if files.overlay is not None and image is not None:
        drawn = overlay(image, ids, no_data_of(ids), colours=colours, multilabel=multilabel)
        _save(output / files.overlay, Image.fromarray(drawn))
    if geometry is not None:
        write_georeferenced(predictor, settings, files, in_bands(ids), geometry)
    else:
        pictures = mask_pictures(ids, colours, multilabel=multilabel, palette=settings.palette)
        for file, picture in zip(files.masks, pictures, strict=True):
            _save(output / file, picture)


def _save(path: Path, picture: Image.Image) -> None:
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")
