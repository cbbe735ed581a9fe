"""Scores of a segmenter over labelled images, each at its own size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convlora.data.dataset import SegmentationDataset
from convlora.data.pixels.masks import LabelFormat
from convlora.inference.predictor import Predictor
from convlora.objectives.metrics import (
    DEFINITIONS,
    bootstrap_interval,
    confusion_matrix,
    foreground,
    per_class,
    summarize,
)
from convlora.objectives.saliency import SaliencyMeasures
from convlora.sam.processing import class_probabilities

INTERVAL_OF = ("iou", "dice")


@dataclass(frozen=True)
class ImageScore:
    """One image's foreground scores; NaN if it has no valid pixel."""

    name: str
    iou: float
    dice: float


@dataclass(frozen=True)
class Scores:
    """Scores of a set of images.

    Attributes:
        summary: By the names of `convlora.objectives.metrics.DEFINITIONS`.
        intervals: 95 % bootstrap intervals over images, of the scores in `INTERVAL_OF`.
        classes: IoU and Dice of each class, pooled over the set; None for a class that is nowhere. Where classes may
            overlap, the background is none of them.
        images: Foreground scores image by image.
        confusions: (K, K) confusion matrix of each image, rows the truth; see `convlora.objectives.metrics`.
    """

    summary: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    classes: dict[str, dict[str, float | None]]
    images: list[ImageScore]
    confusions: list[np.ndarray] = field(repr=False, compare=False)  # an array has no single truth to compare by

    def as_json(self) -> dict[str, Any]:
        """Plain values, with the definition of every score; undefined scores become null."""
        return {
            "images": len(self.images),
            "scores": {name: _number(value) for name, value in self.summary.items()},
            "intervals_95": {name: [_number(value) for value in pair] for name, pair in self.intervals.items()},
            "classes": self.classes,
            "per_image": [
                {"name": image.name, "iou": _number(image.iou), "dice": _number(image.dice)} for image in self.images
            ],
            "definitions": {name: DEFINITIONS[name] for name in self.summary},
        }


def score(
    predictor: Predictor,
    dataset: SegmentationDataset,
    labels: LabelFormat,
    *,
    batch_size: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
    on_prediction: Callable[[int, np.ndarray], None] = lambda index, prediction: None,
) -> Scores:
    """Segment every image and compare with its mask; ignored pixels count nowhere.

    Args:
        predictor: The tuned model.
        dataset: Images and masks.
        labels: Of the masks.
        batch_size: Images that are segmented at once.
        progress: Called with (done, total).
        on_prediction: Called with the index and the class ids (H, W), or bit fields, of each image.
    """
    confusions: list[np.ndarray] = []
    names: list[str] = []
    saliency = SaliencyMeasures() if labels.num_classes == 2 else None
    for start in range(0, len(dataset), batch_size):
        items = [dataset[index] for index in range(start, min(start + batch_size, len(dataset)))]
        for item, logits in zip(items, predictor.logits([item["image"] for item in items]), strict=True):
            truth, prediction = item["mask"], predictor.processor.classes_of(logits).numpy()
            on_prediction(len(names), prediction)
            confusions.append(
                confusion_matrix(
                    prediction, truth, labels.num_classes, labels.ignore_index, multilabel=labels.multilabel
                )
            )
            names.append(item["name"])
            if saliency is not None:
                probability = class_probabilities(logits)[1].numpy()
                saliency.add(probability, truth == 1, truth != labels.ignore_index)
        progress(len(names), len(dataset))
    summary = summarize(confusions, multilabel=labels.multilabel) | (saliency.summary() if saliency is not None else {})
    return Scores(summary, _intervals(confusions), _classes(confusions, labels), _images(names, confusions), confusions)


def _intervals(confusions: Sequence[np.ndarray]) -> dict[str, tuple[float, float]]:
    def pooled(name: str) -> Callable[[Sequence[np.ndarray]], float]:
        return lambda drawn: summarize(drawn)[name]

    return {name: bootstrap_interval(confusions, pooled(name)) for name in INTERVAL_OF}


def _classes(confusions: Sequence[np.ndarray], labels: LabelFormat) -> dict[str, dict[str, float | None]]:
    iou, dice = per_class(np.sum(confusions, axis=0))
    shown = [(i, name) for i, name in enumerate(labels.classes) if i or not labels.multilabel]
    return {name: {"iou": _number(iou[i]), "dice": _number(dice[i])} for i, name in shown}


def _images(names: Sequence[str], confusions: Sequence[np.ndarray]) -> list[ImageScore]:
    iou, dice = foreground(np.stack(confusions))
    return [ImageScore(*values) for values in zip(names, iou.tolist(), dice.tolist(), strict=True)]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
