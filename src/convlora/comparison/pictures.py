"""The test images on which the methods of a table differ most, with what each of them said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from convlora.comparison.plan import Run
from convlora.comparison.predictions import from_picture
from convlora.comparison.records import Record
from convlora.comparison.summary import Line
from convlora.comparison.tasks import MASKS
from convlora.data.dataset import SegmentationDataset
from convlora.data.pixels.display import visible_rgb
from convlora.data.pixels.masks import LabelFormat
from convlora.errors import WeightsError
from convlora.evaluation.figures import data_uri
from convlora.inference.drawing import overlay
from convlora.objectives.metrics import foreground
from convlora.training.folder import RunFolder

_IMAGES = 4
_LONGEST_SIDE = 256  # pixels: a page holds up to twenty pictures of each image


@dataclass(frozen=True)
class Row:
    """One image: its name, and captions and pictures (as URLs), of the image, the truth and each method."""

    name: str
    pictures: list[tuple[str, str]]


def disagreements(lines: Sequence[Line]) -> tuple[list[Row], LabelFormat | None]:
    """The images with the widest range of IoU between the methods, each method by its run with the first seed.

    Returns:
        The rows, widest first, and how their classes are named; none and None if fewer than two methods have runs.

    Raises:
        DataError: An image or a mask cannot be read any more.
        WeightsError: A run's split or predicted masks are gone.
    """
    first = [(line.cell.method, *line.runs[0]) for line in lines if line.runs]
    if len(first) < 2:
        return [], None
    ious = np.stack([foreground(record.matrices)[0] for _, _, record in first])
    spread = np.nan_to_num(np.ptp(ious, axis=0), nan=-1.0)  # an image without a valid pixel comes last
    folder = RunFolder(first[0][1].folder)
    split = folder.read_split()
    settings = first[0][1].settings
    dataset = SegmentationDataset(
        split.samples["test"], split.labels, limits=settings.limits, channels=settings.channels
    )
    chosen = np.argsort(-spread, kind="stable")[:_IMAGES]
    return [_row(dataset, int(index), first, ious[:, index]) for index in chosen], split.labels


def _row(dataset: SegmentationDataset, index: int, runs: Sequence[tuple[str, Run, Record]], ious: np.ndarray) -> Row:
    item = dataset[index]
    image, truth = visible_rgb(item["image"], runs[0][1].settings.display_channels), item["mask"]
    labels = dataset.labels
    drawn: dict[str, Any] = {"colours": labels.palette, "multilabel": labels.multilabel}
    pictures = [
        ("image", _small(image)),
        ("truth", _small(overlay(image, truth, labels.ignore_index, **drawn))),
    ]
    for (method, run, _), iou in zip(runs, ious, strict=True):
        pictures.append((f"{method} · IoU {iou:.3f}", _small(overlay(image, _mask(run, index), **drawn))))
    return Row(f"{item['name']} · {image.shape[1]} × {image.shape[0]}", pictures)


def _mask(run: Run, index: int) -> np.ndarray:
    path = run.folder / MASKS / f"{index}.png"
    try:
        with Image.open(path) as picture:
            return from_picture(picture)
    except OSError as error:
        raise WeightsError(f"{path} is not readable ({error}).") from error


def _small(image: np.ndarray) -> str:
    picture = Image.fromarray(image)
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    return data_uri(np.asarray(picture))
