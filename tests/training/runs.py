"""A small SAM, a few images and a quick run, for the tests of everything that trains."""

from __future__ import annotations

import json

import numpy as np
from PIL import Image

from convlora.files import sha256
from convlora.training.events import Progress
from convlora.training.settings import TrainSettings
from tests.sam.models import small_sam


def write_data(folder, count=9, classes=2, seed=0):
    """Images with bright discs and their masks; two folders."""
    rng = np.random.default_rng(seed)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for i in range(count):
        height, width = int(rng.integers(40, 64)), int(rng.integers(40, 64))
        rows, columns = np.mgrid[:height, :width]
        mask = np.zeros((height, width), dtype=np.uint8)
        for class_id in range(1, classes):
            centre = rng.integers(10, 30, 2)
            mask[(rows - centre[0]) ** 2 + (columns - centre[1] * class_id) ** 2 < 90] = class_id
        image = rng.normal(60, 10, (height, width, 3)) + mask[..., None] * 120 / (classes - 1)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"i{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"i{i}.png")


def write_checkpoint(folder):
    """A `SamModel` with random weights, 64 pixels wide."""
    small_sam().save_pretrained(folder)


def quick_settings(folder, output="run", **changes):
    """A run of six steps over the data and the checkpoint below `folder`: two epochs of three steps."""
    values = {
        "images": str(folder / "data" / "images"),
        "masks": str(folder / "data" / "masks"),
        "model": str(folder / "sam"),
        "output": str(folder / output),
        "epochs": 2,
        "batch_size": 2,
        "evaluate_every": 2,
        "learning_rate": 1e-3,
        "device": "cpu",
        "precision": "fp32",
        "val_fraction": 0.2,
        "test_fraction": 0.2,
    }
    return TrainSettings(**{**values, **changes})


def weights_hash(run):
    return sha256(run.adapter / "adapter_model.safetensors")


def loss_curve(run):
    """The log without what depends on the clock."""
    return [
        json.dumps({k: v for k, v in entry.items() if "time" not in k and "second" not in k})
        for entry in run.read_log()
    ]


class Crash(Exception):  # noqa: N818
    pass


def crash_after(step):
    """A reporter that fails when that step is logged: nothing of the run gets a chance to clean up."""

    def report(event):
        if isinstance(event, Progress) and event.loss is not None and event.step == step:
            raise Crash

    return report
