"""Intervals and p-values of scores over several seeds and a set of test images.

Images and seeds are both samples. The images are resampled with replacement, the same draw for every seed and method,
because all were scored on the same images (a score of a draw is that of its pooled confusion matrices). Three seeds
cannot be resampled so: their spread would come out a third too small and its uncertainty not at all (the interval would
hold the truth in 87 % of studies where seeds differ as much as methods do, and not in 95 %). So each draw of
images is moved by t · sd / √seeds, with the standard deviation over the seeds, and t drawn from Student's distribution
with seeds - 1 degrees of freedom. Without noise of the images this is the classical t interval; without noise of the
seeds it is the percentile bootstrap. With one seed it is that of the images alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from convlora.comparison.settings import POOLED
from convlora.objectives.metrics import balanced_error_rate, foreground

RESAMPLES = 10_000
_CHUNK = 4_000_000  # counts that are in memory at a time
_SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: Over the seeds, of the score of all test images.
        sd: Standard deviation over the seeds (n - 1); None of one seed.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p_value: Two-sided, of a mean of 0: twice the share of the draws on the other side of it.
        seeds: Number of seeds.
    """

    mean: float
    sd: float | None
    low: float
    high: float
    p_value: float
    seeds: int


def pooled_score(confusion: np.ndarray, metric: str) -> np.ndarray:
    """A score (...) of pooled confusion matrices (..., K, K), as `convlora.objectives.metrics.DEFINITIONS` has it.

    Args:
        confusion: Rows are the truth.
        metric: iou, dice, pixel_accuracy or ber.
    """
    if metric == "pixel_accuracy":
        with np.errstate(invalid="ignore"):
            return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum((-2, -1))
    if metric == "ber":
        return balanced_error_rate(confusion)
    if metric not in ("iou", "dice"):
        raise ValueError(f"metric {metric!r} must be {', '.join(POOLED)}")
    iou, dice = foreground(confusion)
    return iou if metric == "iou" else dice


def image_draws(images: int, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """How often each image is drawn, (b, images) counts in parts of `resamples` rows; always the same draws."""
    generator = np.random.default_rng(_SEED)
    part = max(1, _CHUNK // images)
    for start in range(0, resamples, part):
        rows = min(part, resamples - start)
        yield generator.multinomial(images, np.full(images, 1 / images), size=rows)


def resampled_scores(matrices: np.ndarray, metric: str, draws: Iterable[np.ndarray] | None = None) -> np.ndarray:
    """Scores (b, S) of S seeds on each of b draws of the images.

    Args:
        matrices: (S, N, K, K) confusion matrices of N images.
        metric: As `pooled_score`.
        draws: Of (·, N) counts; default `image_draws`.
    """
    seeds, images, k, _ = matrices.shape
    flat = matrices.reshape(seeds, images, k * k).transpose(1, 0, 2).reshape(images, -1).astype(float)
    parts = [
        pooled_score((counts @ flat).reshape(-1, seeds, k, k), metric)
        for counts in (image_draws(images) if draws is None else draws)
    ]
    return np.concatenate(parts)


def estimate(
    scores: np.ndarray, resampled: np.ndarray, *, bounds: tuple[float, float], level: float = 0.95
) -> Estimate:
    """Mean, interval and p-value of scores, or of paired differences of scores.

    Args:
        scores: (S,) of all images, by seed.
        resampled: (b, S) of draws of the images.
        bounds: What the mean cannot exceed.
        level: Of the interval.
    """
    seeds = len(scores)
    sd = float(np.std(scores, ddof=1)) if seeds > 1 else None
    drawn = resampled.mean(1)
    if sd is not None:
        t = np.random.default_rng((_SEED, seeds)).standard_t(seeds - 1, size=len(drawn))
        drawn = drawn + t * sd / np.sqrt(seeds)
    drawn = drawn[~np.isnan(drawn)]  # of images without a valid pixel
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]).clip(*bounds)
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p_value = min(1.0, 2 * (1 + int(beyond)) / (1 + len(drawn)))
    return Estimate(float(scores.mean()), sd, float(low), float(high), p_value, seeds)


def score_estimate(matrices: np.ndarray, metric: str) -> Estimate:
    """The mean test score of the runs of a method, from (S, N, K, K) confusion matrices."""
    return estimate(
        pooled_score(matrices.sum(1), metric), resampled_scores(matrices, metric), bounds=(0, _largest(metric))
    )


def difference_estimate(matrices: np.ndarray, reference: np.ndarray, metric: str) -> Estimate:
    """The mean difference to a reference, from (S, N, K, K) confusion matrices of the same seeds and images."""
    if matrices.shape != reference.shape:
        raise ValueError(
            f"matrices {matrices.shape} and reference {reference.shape} differ in seeds, images or classes"
        )
    scores = pooled_score(matrices.sum(1), metric) - pooled_score(reference.sum(1), metric)
    resampled = resampled_scores(matrices, metric) - resampled_scores(reference, metric)
    return estimate(scores, resampled, bounds=(-_largest(metric), _largest(metric)))


def _largest(metric: str) -> float:
    return 100.0 if metric == "ber" else 1.0  # percent


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979): any error among those below α has probability α at most."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return [float(p) for p in adjusted]
