"""Intervals and p-values of scores over several seeds and a set of test images.

Images and seeds are both samples. The images are resampled with replacement, the same draw for every seed and method,
because all were scored on the same images (a score of a draw is that of its pooled confusion matrices). Three seeds
cannot be resampled so: their spread would come out a third too small and its uncertainty not at all (the interval would
hold the truth in 87 % of studies where seeds differ as much as methods do, and not in 95 %). So each draw of
images is moved by t · sd / √seeds, with the standard deviation over the seeds, and t drawn from Student's distribution
with seeds - 1 degrees of freedom. Without noise of the images this is the classical t interval; without noise of the
seeds it is the percentile bootstrap. With one seed it is that of the images alone.

The percentile bootstrap of few images is too narrow, too: of 8 images, without a true difference, p was below 0.05 in
12 % of studies. So its draws are spread about the mean by √(N / (N - 1)) · t / z, the 0.975 quantiles of Student's t
with N - 1 degrees of freedom and of the normal distribution (the expanded percentile interval of Hesterberg 2015,
"What Teachers Should Know About the Bootstrap", The American Statistician 69:4). One image gives no interval, and an
image without a valid pixel counts as none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit  # scipy.stats takes a second to import

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
        low: Lower end of the 95 % interval; None, as the next two, of one image or of too few seeds.
        high: Upper end.
        p_value: Two-sided, of a mean of 0: twice the share of the draws on the other side of it.
        seeds: Number of seeds.
        images: Number of images with a valid pixel.
    """

    mean: float
    sd: float | None
    low: float | None
    high: float | None
    p_value: float | None
    seeds: int
    images: int


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


def image_draws(images: int, resamples: int = RESAMPLES, *, width: int = 1) -> Iterator[np.ndarray]:
    """How often each image is drawn, (b, images) counts in parts of `resamples` rows; always the same draws.

    Args:
        images: Number of images.
        resamples: Number of draws.
        width: Numbers that are computed from each draw; b is chosen so that they fit into the memory.
    """
    generator = np.random.default_rng(_SEED)
    part = max(1, _CHUNK // max(images, width))
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
        for counts in (image_draws(images, width=flat.shape[1]) if draws is None else draws)
    ]
    return np.concatenate(parts)


def estimate(
    scores: np.ndarray, resampled: np.ndarray, images: int, *, bounds: tuple[float, float], level: float = 0.95
) -> Estimate:
    """Mean, interval and p-value of scores, or of paired differences of scores.

    Args:
        scores: (S,) of all images, by seed.
        resampled: (b, S) of draws of the images.
        images: Number of images that were drawn from, at least 2.
        bounds: What the mean cannot exceed.
        level: Of the interval.
    """
    found = _point(scores, images)
    end = (1 + level) / 2
    wider = np.sqrt(images / (images - 1)) * stdtrit(images - 1, end) / ndtri(end)
    drawn = found.mean + wider * (resampled.mean(1) - found.mean)
    if found.sd is not None:
        t = np.random.default_rng((_SEED, found.seeds)).standard_t(found.seeds - 1, size=len(drawn))
        drawn = drawn + t * found.sd / np.sqrt(found.seeds)
    low, high = np.quantile(drawn, [1 - end, end]).clip(*bounds)
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p_value = min(1.0, 2 * (1 + int(beyond)) / (1 + len(drawn)))
    return dataclasses.replace(found, low=float(low), high=float(high), p_value=p_value)


def _point(scores: np.ndarray, images: int) -> Estimate:
    """The mean alone."""
    sd = float(np.std(scores, ddof=1)) if len(scores) > 1 else None
    return Estimate(float(scores.mean()), sd, None, None, None, len(scores), images)


def score_estimate(matrices: np.ndarray, metric: str, *, least: int = 1) -> Estimate | None:
    """The mean test score of the runs of a method.

    Args:
        matrices: (S, N, K, K) confusion matrices.
        metric: As `pooled_score`.
        least: Seeds that an interval needs: what failed runs leave must not look more certain than the other lines.

    Returns:
        None if no image has a valid pixel.
    """
    return _estimate([matrices], metric, least)


def difference_estimate(matrices: np.ndarray, reference: np.ndarray, metric: str, *, least: int = 1) -> Estimate | None:
    """The mean difference to a reference, from confusion matrices of the same seeds and images.

    Args:
        matrices: (S, N, K, K).
        reference: (S, N, K, K).
        metric: As `pooled_score`.
        least: As `score_estimate`.

    Returns:
        None if no image has a valid pixel.

    Raises:
        ValueError: The shapes differ.
    """
    if matrices.shape != reference.shape:
        raise ValueError(
            f"matrices {matrices.shape} and reference {reference.shape} differ in seeds, images or classes"
        )
    return _estimate([matrices, reference], metric, least)


def _estimate(sides: Sequence[np.ndarray], metric: str, least: int) -> Estimate | None:
    """Of one method's scores, or of the differences of two."""
    valid = sides[0][0].sum((-2, -1)) > 0
    sides = [side[:, valid] for side in sides]
    images = int(valid.sum())
    if not images:
        return None
    scores = _first_less_second([pooled_score(side.sum(1), metric) for side in sides])
    if images == 1 or len(scores) < least:
        return _point(scores, images)
    resampled = _first_less_second([resampled_scores(side, metric) for side in sides])
    largest = _largest(metric)
    return estimate(scores, resampled, images, bounds=(0 if len(sides) == 1 else -largest, largest))


def _first_less_second(values: Sequence[np.ndarray]) -> np.ndarray:
    return values[0] if len(values) == 1 else values[0] - values[1]


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
