"""Scores from confusion matrices. Each name has one definition, given in `DEFINITIONS`.

An image enters as its confusion matrix at its own size: rows are the truth, columns the prediction, ignored pixels left
out. So scores of a whole set cost no more memory than the matrices.

Where classes may overlap, each of them is counted by itself against the background, class 0: (c, c) are the pixels
where class c is and is predicted, (c, 0) those where it is missed, (0, c) those where it is wrongly predicted, and
(0, 0) those that neither truth nor prediction gives any class. So IoU and Dice of a class come from its row and column
as always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from convlora.data.labels.bits import bit

# An image without a valid pixel counts nowhere.
DEFINITIONS = {
    "iou": "Intersection over union, all pixels pooled, mean over the foreground classes there or predicted",
    "dice": "2·TP / (2·TP + FP + FN), all pixels pooled, mean over the foreground classes there or predicted",
    "miou": "Intersection over union, all pixels pooled, mean over all classes there or predicted, background included",
    "iou_per_image": "Mean over images of the mean IoU of the foreground classes there or predicted; 1 if none is",
    "dice_per_image": "Mean over images of the mean Dice of the foreground classes there or predicted; 1 if none is",
    "pixel_accuracy": "Share of all pixels of the set that got their class",
    "ber": "Balanced error rate in percent, all pixels of the set pooled, as the shadow literature; binary tasks only",
    "ber_per_image": "Balanced error rate in percent, averaged over images, as the released code; binary tasks only",
    "mae": "Mean over images of the mean absolute difference of probability and truth; binary tasks only",
    "s_measure": "Structure measure S_α, α = 0.5 (Fan et al. 2017), mean over images; binary tasks only",
    "e_measure": "Enhanced-alignment measure E_φ (Fan et al. 2018), mean over thresholds and images; binary tasks only",
    "weighted_f": "Weighted F-measure, β² = 1 (Margolin et al. 2014; 0 if empty), mean over images; binary tasks only",
}
MULTILABEL = ("iou", "dice", "iou_per_image", "dice_per_image")
"""Scores that are defined where classes may overlap."""
LOWER_IS_BETTER = frozenset({"ber", "ber_per_image", "mae"})


def best(scores: Iterable[float], metric: str) -> float:
    """The best of at least one score by this name: the largest, or the smallest of those in `LOWER_IS_BETTER`."""
    return min(scores) if metric in LOWER_IS_BETTER else max(scores)


def confusion_matrix(
    prediction: np.ndarray,
    truth: np.ndarray,
    num_classes: int,
    ignore_index: int = 255,
    *,
    multilabel: bool = False,
) -> np.ndarray:
    """Count pixels by (true class, predicted class).

    Args:
        prediction: (H, W) class ids.
        truth: (H, W) class ids or `ignore_index`.
        num_classes: K.
        ignore_index: Of pixels that do not count.
        multilabel: Whether both hold bit fields (`convlora.data.labels.bits`); see above for what is counted then.

    Returns:
        (K, K) int64.

    Raises:
        ValueError: The shapes differ, or a class is outside 0…K-1.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} differ in size")
    valid = truth != ignore_index
    if multilabel:
        return _overlapping(prediction[valid], truth[valid], num_classes)
    rows, columns = truth[valid].astype(np.int64), prediction[valid].astype(np.int64)
    for name, ids in (("truth", rows), ("prediction", columns)):
        if ids.size and not (ids.min() >= 0 and ids.max() < num_classes):
            raise ValueError(f"{name} holds classes outside 0…{num_classes - 1}")
    return np.bincount(rows * num_classes + columns, minlength=num_classes**2).reshape(num_classes, num_classes)


def _overlapping(prediction: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """The matrix of bit fields (n,)."""
    for name, fields in (("truth", truth), ("prediction", prediction)):
        if fields.size and not (fields.min() >= 0 and fields.max() < 2 ** (num_classes - 1)):
            raise ValueError(f"{name} holds classes outside 1…{num_classes - 1}")
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    matrix[0, 0] = np.count_nonzero((prediction == 0) & (truth == 0))
    for class_id in range(1, num_classes):
        there, said = truth & bit(class_id) != 0, prediction & bit(class_id) != 0
        matrix[class_id, class_id] = np.count_nonzero(there & said)
        matrix[class_id, 0] = np.count_nonzero(there & ~said)
        matrix[0, class_id] = np.count_nonzero(said & ~there)
    return matrix


def per_class(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU and Dice of every class, (..., K) each from (..., K, K); NaN for a class neither there nor predicted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)
    total = (confusion.sum(-2) + confusion.sum(-1)).astype(float)
    with np.errstate(invalid="ignore"):
        return hits / (total - hits), 2 * hits / total


def foreground(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU and Dice of images, (...) each from (..., K, K): means over the foreground classes there or predicted.

    1 if there is none; NaN for an image without a valid pixel.
    """
    empty = np.where(confusion.sum((-2, -1)) > 0, 1.0, np.nan)
    iou, dice = per_class(confusion)
    return _mean(iou[..., 1:], empty), _mean(dice[..., 1:], empty)


def balanced_error_rate(confusion: np.ndarray) -> np.ndarray:
    """100 · (1 − mean recall of the classes that are there), (...) from (..., K, K); NaN if there is none."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        return 100 * (1 - _mean(hits / confusion.sum(-1)))


def summarize(confusions: Sequence[np.ndarray], *, multilabel: bool = False) -> dict[str, float]:
    """All scores that a set's confusion matrices give, by the names of `DEFINITIONS`; those of `MULTILABEL` if so.

    A score that the set leaves undefined (no valid pixel) is NaN.

    Raises:
        ValueError: There is no image.
    """
    if not len(confusions):
        raise ValueError("there is no image to score")
    images = np.asarray(confusions)
    pooled = images.sum(0)
    iou, dice = foreground(pooled)
    iou_per_image, dice_per_image = foreground(images)
    with np.errstate(invalid="ignore"):
        accuracy = np.trace(pooled) / pooled.sum()
    scores: dict[str, Any] = {
        "iou": iou,
        "dice": dice,
        "miou": _mean(per_class(pooled)[0]),
        "iou_per_image": _mean(iou_per_image),
        "dice_per_image": _mean(dice_per_image),
        "pixel_accuracy": accuracy,
    }
    if multilabel:  # a pixel of two classes is counted twice, so the others mean nothing
        return {name: float(scores[name]) for name in MULTILABEL}
    if len(pooled) == 2:
        scores["ber"] = balanced_error_rate(pooled)
        scores["ber_per_image"] = _mean(balanced_error_rate(images))
    return {name: float(score) for name, score in scores.items()}


def bootstrap_interval(
    confusions: Sequence[np.ndarray],
    score: Callable[[Sequence[np.ndarray]], float],
    *,
    seed: int = 0,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of a score under resampling of the images."""
    generator = np.random.default_rng(seed)
    draws = generator.integers(len(confusions), size=(resamples, len(confusions)))
    values = [score([confusions[i] for i in draw]) for draw in draws]
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _mean(values: np.ndarray, empty: float | np.ndarray = np.nan) -> np.ndarray:
    """Mean over the last axis of what is not NaN; `empty` where all is."""
    present = ~np.isnan(values)
    count = present.sum(-1)
    return np.where(count > 0, np.where(present, values, 0).sum(-1) / np.maximum(count, 1), empty)
