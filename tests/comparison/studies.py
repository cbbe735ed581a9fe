"""Studies whose runs were never made: their records are written by hand, to test everything that comes after."""

from __future__ import annotations

import numpy as np
from PIL import Image

from convlora.comparison.records import Record
from convlora.comparison.settings import CompareSettings
from convlora.comparison.tasks import MASKS
from convlora.data.pixels.masks import LabelFormat
from convlora.data.samples import Sample
from convlora.training.folder import RunFolder
from convlora.training.settings import as_dict
from convlora.training.split import Split


def study_settings(folder, **changes):
    values = {
        "output": str(folder / "study"),
        "datasets": {"discs": {"images": str(folder / "data" / "images"), "masks": str(folder / "data" / "masks")}},
        "models": ["sam-tiny"],
        "methods": ["decoder", "lora"],
        "learning_rates": [1e-4, 1e-3, 1e-2],
        "seeds": [0, 1, 2],
        "train": {"max_steps": 2},
    }
    return CompareSettings(**{**values, **changes})


def matrices(iou, images=6, seed=0):
    """Binary confusion matrices (N, 2, 2) of about this IoU, a little different from image to image."""
    hits = 1000 * np.clip(iou + np.random.default_rng(seed).normal(0, 0.05, images), 0.01, 0.99)
    return [[[1000, 0], [int(1000 - hit), int(hit)]] for hit in hits]


def write_record(run, *, validation=0.5, iou=0.5, images=6, nothing_valid=False):
    """The record of a run that went well."""
    Record(
        settings=as_dict(run.settings),
        validation=validation,
        scores={"iou": None if nothing_valid else iou},
        images=[f"i{i}" for i in range(images)],
        classes=["background", "disc"],
        confusions=np.zeros((images, 2, 2), int).tolist() if nothing_valid else matrices(iou, images, run.seed),
        seconds=100.0 + run.seed,
        peak_memory=5e8,
        trainable=1000,
        adapter_bytes=4000,
        device="cpu",
    ).write(run.folder)


def write_failure(run, error="the loss is not finite"):
    Record(settings=as_dict(run.settings), error=error).write(run.folder)


def write_split(run, images, masks):
    """The split of a run over pictures that are there, and an all-background prediction for each."""
    samples = [Sample(path.stem, path, masks / path.name, "test") for path in sorted(images.iterdir())]
    folder = RunFolder(run.folder)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.write_split(
        Split({"train": [], "val": [], "test": samples}, LabelFormat(("background", "disc"), "ids", 255))
    )
    (folder.path / MASKS).mkdir()
    for index, sample in enumerate(samples):
        with Image.open(sample.image) as picture:
            Image.fromarray(np.zeros(picture.size[::-1], np.uint8)).save(folder.path / MASKS / f"{index}.png")
    return samples


def finish(study, *, best=1e-3, iou=None):
    """Write all records that a study asks for, round by round, with the best validation score at one rate."""
    study.refresh()
    while missing := study.missing():
        for run in missing:
            score = (iou or {}).get(run.cell.method, 0.5)
            write_record(run, validation=0.9 if run.learning_rate == best else 0.1, iou=score)
        study.refresh()
