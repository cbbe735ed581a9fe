"""Predict a folder of images into a folder of masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from convlora.data.images import ImageLimits, read_image
from convlora.data.pairing import Sample, find_images
from convlora.data.samples import first_few
from convlora.errors import ImageError
from convlora.files import output_errors, replacing
from convlora.inference.drawing import overlay
from convlora.inference.output import file_names, present_files, refuse_clashes
from convlora.inference.pipeline import WriteBehind, queue_length, read_ahead, thread_pool
from convlora.inference.predictor import Predictor
from convlora.inference.settings import PredictSettings
from convlora.sam.processing import class_probabilities, classes


def predict_folder(
    settings: PredictSettings,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    rank: int = 0,
    world: int = 1,
) -> list[Path]:
    """Write a mask for each image; return the masks' paths.

    Images are read and masks are written in threads while others are segmented; about five batches (of small batches:
    about ten images) are in memory. Each file appears whole or not at all, and a mask only after its overlay and
    probabilities, so that `skip_existing` continues exactly.

    Args:
        settings: Everything about the prediction.
        progress: Called with the number of images done and of all.
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
    samples = find_images(settings.images)
    mine, others = samples[rank::world], [s for i, s in enumerate(samples) if i % world != rank]
    output = Path(settings.output)
    present = present_files(output, samples, others, skip_existing=settings.skip_existing)
    predictor = Predictor.from_folder(
        settings.run, model=settings.model, device=settings.device, precision=settings.precision
    )
    files = {sample.name: file_names(sample.name, settings, len(predictor.id2label)) for sample in samples}
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

    failed = _predict(predictor, todo, files, settings, count_one)
    if failed:
        raise ImageError(
            f"{len(failed)} of {len(mine)} images were left out, the others were predicted: {first_few(failed)}."
        )
    return [output / files[sample.name][-1] for sample in mine]


def _predict(
    predictor: Predictor,
    samples: Sequence[Sample],
    files: dict[str, list[str]],
    settings: PredictSettings,
    count_one: Callable[[], None],
) -> list[str]:
    """Segment and write; return what is wrong with the images that could not be read."""
    limits = ImageLimits(int(settings.max_megapixels * 1e6))
    output, length = Path(settings.output), queue_length(settings.batch_size)
    failed: list[str] = []

    def read(sample: Sample) -> np.ndarray | ImageError:
        try:
            return read_image(sample.image, limits)
        except ImageError as error:
            return error

    def segment_batch(futures: Iterable[tuple[Sample, Future[np.ndarray | ImageError]]]) -> bool:
        """Segment the next batch and hand it to the writers; False if there is none. Here, so that its images go."""
        taken = [(sample, future.result()) for sample, future in futures]
        failed.extend(str(image).removesuffix(".") for _, image in taken if isinstance(image, ImageError))
        batch = [(sample, image) for sample, image in taken if isinstance(image, np.ndarray)]
        logits = predictor.logits([image for _, image in batch]) if batch else []
        for (sample, image), one in zip(batch, logits, strict=True):
            ids, probabilities = _answers(one, with_probabilities=settings.probabilities)
            drawn_on = image if settings.overlays else None
            writing.add(_write, output, files[sample.name], ids, probabilities, drawn_on)
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


def _answers(logits: torch.Tensor, *, with_probabilities: bool) -> tuple[np.ndarray, list[np.ndarray]]:
    """Class ids (H, W) uint8 and, if wanted, uint16 probabilities of each class but the background."""
    ids = classes(logits).numpy().astype(np.uint8)
    if not with_probabilities:
        return ids, []
    return ids, list((class_probabilities(logits)[1:].numpy() * 65535 + 0.5).astype(np.uint16))


def _write(
    output: Path, files: Sequence[str], ids: np.ndarray, probabilities: list[np.ndarray], image: np.ndarray | None
) -> None:
    """Write the files of one image, the mask last; an overlay if its image is given."""
    drawn = [] if image is None else [overlay(image, ids)]
    for file, pixels in zip(files, [*probabilities, *drawn, ids], strict=True):
        with replacing(output / file) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")
