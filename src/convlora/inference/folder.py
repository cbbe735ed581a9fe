"""Predict a folder of images into a folder of masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from convlora.data.images import ImageLimits, read_image
from convlora.data.pairing import Sample, find_images
from convlora.errors import ImageError, OutputError
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
        ImageError: Some images could not be read; the others were predicted. The message names them.
        OutputError: The output folder is not empty (without `skip_existing`) or not writable.
        WeightsError: Of the run folder.
    """
    samples = find_images(settings.images)
    output = Path(settings.output)
    todo = _todo(samples, output, skip_existing=settings.skip_existing)
    predictor = Predictor.from_folder(settings.run, model=settings.model, device=settings.device)
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
                failed.append(str(error))
        if batch:
            for (sample, image), logits in zip(batch, predictor.logits([image for _, image in batch]), strict=True):
                _write(output, sample.name, image, logits, settings)
        done += len(todo[start : start + settings.batch_size])
        progress(done, len(samples))
    if failed:
        raise ImageError(f"{len(failed)} of {len(samples)} images were left out: {'; '.join(failed[:3])}")
    return [output / f"{sample.name}.png" for sample in samples]


def _todo(samples: Sequence[Sample], output: Path, *, skip_existing: bool) -> list[Sample]:
    with output_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        present = {entry.name for entry in output.iterdir() if not entry.name.startswith(".")}
    if present and not skip_existing:
        raise OutputError(
            f"{output} is not empty (it holds {min(present)}). Choose a new folder, or continue an interrupted "
            "prediction with --skip_existing."
        )
    return [sample for sample in samples if f"{sample.name}.png" not in present]


def _write(output: Path, name: str, image: np.ndarray, logits: torch.Tensor, settings: PredictSettings) -> None:
    ids = classes(logits).numpy().astype(np.uint8)
    if settings.probabilities:
        levels = (class_probabilities(logits).numpy() * 65535 + 0.5).astype(np.uint16)
        for i, level in enumerate(levels[1:], start=1):
            suffix = "" if len(levels) == 2 else f"_{i}"
            _save(level, output / f"{name}_probability{suffix}.png")
    if settings.overlays:
        _save(overlay(image, ids), output / f"{name}_overlay.png")
    _save(ids, output / f"{name}.png")


def _save(pixels: np.ndarray, path: Path) -> None:
    with replacing(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
