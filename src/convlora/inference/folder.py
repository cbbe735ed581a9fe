"""Predict a folder of images into a folder of masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from convlora.data.images import ImageLimits, read_image
from convlora.data.pairing import Sample, find_images
from convlora.data.samples import first_few
from convlora.errors import ImageError, OutputError, PairingError
from convlora.files import output_errors, replacing
from convlora.inference.drawing import overlay
from convlora.inference.predictor import Predictor
from convlora.inference.settings import PredictSettings
from convlora.sam.processing import class_probabilities, classes


def predict_folder(
    settings: PredictSettings, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Path]:
    """Write a mask for each image; return the masks' paths.

    Each file appears whole or not at all, and a mask only after its overlay and probabilities, so that
    `skip_existing` continues exactly.

    Raises:
        PairingError: There are no images, or two of them would be written to the same file.
        ImageError: Some images could not be read; the others were predicted. The message names them.
        OutputError: The output folder is not empty (without `skip_existing`), not writable, or holds the images.
        WeightsError: Of the run folder.
    """
    samples = find_images(settings.images)
    output = Path(settings.output)
    present = _present(output, samples, skip_existing=settings.skip_existing)
    predictor = Predictor.from_folder(
        settings.run, model=settings.model, device=settings.device, precision=settings.precision
    )
    files = {sample.name: _files(sample.name, settings, len(predictor.id2label)) for sample in samples}
    _refuse_clashes(files)
    todo = [sample for sample in samples if not present.issuperset(files[sample.name])]
    with output_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    limits = ImageLimits(int(settings.max_megapixels * 1e6))
    failed: list[str] = []
    done = len(samples) - len(todo)
    progress(done, len(samples))
    for start in range(0, len(todo), settings.batch_size):
        batch: list[tuple[Sample, np.ndarray]] = []
        for sample in todo[start : start + settings.batch_size]:
            try:
                batch.append((sample, read_image(sample.image, limits)))
            except ImageError as error:
                failed.append(str(error).removesuffix("."))
        if batch:
            for (sample, image), logits in zip(batch, predictor.logits([image for _, image in batch]), strict=True):
                _write(output, files[sample.name], image, logits, settings)
        done += len(todo[start : start + settings.batch_size])
        progress(done, len(samples))
    if failed:
        raise ImageError(
            f"{len(failed)} of {len(samples)} images were left out, the others were predicted: {first_few(failed)}."
        )
    return [output / files[sample.name][-1] for sample in samples]


def _present(output: Path, samples: Sequence[Sample], *, skip_existing: bool) -> set[str]:
    """Names of the files that the output folder holds already."""
    with output_errors(output):
        if not output.exists():
            return set()
        present = {entry.name for entry in output.iterdir() if not entry.name.startswith(".")}
        among_images = output.samefile(samples[0].image.parent)
    if among_images:
        raise OutputError(f"{output} holds the images themselves. Choose a new folder for the masks.")
    if present and not skip_existing:
        raise OutputError(
            f"{output} is not empty (it holds {min(present)}). Choose a new folder, or continue an interrupted "
            "prediction with --skip_existing."
        )
    return present


def _files(name: str, settings: PredictSettings, num_classes: int) -> list[str]:
    """Names of the files of one image in the order of writing: probabilities, overlay, mask."""
    names = []
    if settings.probabilities:
        suffixes = [""] if num_classes == 2 else [f"_{i}" for i in range(1, num_classes)]
        names += [f"{name}_probability{suffix}.png" for suffix in suffixes]
    if settings.overlays:
        names.append(f"{name}_overlay.png")
    return [*names, f"{name}.png"]


def _refuse_clashes(files: Mapping[str, Sequence[str]]) -> None:
    owners: dict[str, str] = {}
    for name, written in files.items():
        for file in written:
            if (other := owners.setdefault(file, name)) != name:
                raise PairingError(
                    f"the images {other} and {name} would both be written to {file}. Rename one of them."
                )


def _write(
    output: Path, files: Sequence[str], image: np.ndarray, logits: torch.Tensor, settings: PredictSettings
) -> None:
    ids = classes(logits).numpy().astype(np.uint8)
    pictures: list[np.ndarray] = []
    if settings.probabilities:
        pictures += list((class_probabilities(logits)[1:].numpy() * 65535 + 0.5).astype(np.uint16))
    if settings.overlays:
        pictures.append(overlay(image, ids))
    for file, pixels in zip(files, [*pictures, ids], strict=True):
        with replacing(output / file) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")
