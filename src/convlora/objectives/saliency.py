"""Measures of binary probability maps that look at structure, as pysodmetrics computes them."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np


def s_measure(probability: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Structure measure S_α, α = 0.5, of one image (Fan et al., ICCV 2017); NaN if it has no valid pixel.

    Args:
        probability: As of `SaliencyMeasures.add`, like the following.
        truth: (H, W) bool.
        valid: (H, W) bool.
    """
    if valid is not None and not valid.any():
        return math.nan
    return float(_s_measure_class()().cal_sm(*_whole(probability, truth, valid)))


class SaliencyMeasures:
    """Collects MAE, S-, E- and weighted F-measure, image by image, at native size.

    Probabilities are used as they are: not stretched to 0…1 per image, as some evaluation scripts do.
    """

    def __init__(self) -> None:
        from py_sod_metrics import WeightedFmeasure  # 1.7 s to import

        self._errors: list[float] = []
        self._measures = {
            "s_measure": _s_measure_class()(),
            "e_measure": _e_measure_class()(),
            "weighted_f": WeightedFmeasure(),
        }

    def add(self, probability: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> None:
        """Add one image; one without a valid pixel is left out.

        Args:
            probability: (H, W) of the foreground, 0…1.
            truth: (H, W) bool.
            valid: (H, W) bool. Other pixels do not enter the MAE; the three measures of structure need the whole
                rectangle and take them for background that was rightly predicted.
        """
        if valid is None:
            valid = np.ones(truth.shape, bool)
        if not valid.any():
            return
        probability, truth = _whole(probability, truth, valid)
        self._errors.append(float(np.abs(probability - truth)[valid].mean()))
        for measure in self._measures.values():
            measure.step(pred=probability, gt=truth, normalize=False)

    def summary(self) -> dict[str, float]:
        """Mean of each measure over the images; NaN if there is none."""
        if not self._errors:
            return dict.fromkeys(("mae", *self._measures), float("nan"))
        results = {name: measure.get_results() for name, measure in self._measures.items()}
        return {
            "mae": float(np.mean(self._errors)),
            "s_measure": float(results["s_measure"]["sm"]),
            "e_measure": float(np.mean(results["e_measure"]["em"]["curve"])),
            "weighted_f": float(results["weighted_f"]["wfm"]),
        }


def _whole(probability: np.ndarray, truth: np.ndarray, valid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The pair in float64 and bool, with background that was rightly predicted where it is not valid."""
    valid = np.ones(truth.shape, bool) if valid is None else valid
    return np.where(valid, probability.astype(np.float64), 0.0), truth.astype(bool) & valid


@cache
def _s_measure_class() -> Any:
    """pysodmetrics' class of S-measures, defined also for a part of one pixel or none.

    There the library divides by zero and gives the whole image 0, however good: an object of one pixel, or one whose
    centroid lies in the last row or column, so that a quadrant is empty.
    """
    from py_sod_metrics import Smeasure

    class DefinedSmeasure(Smeasure):
        def s_object(self, x: np.ndarray) -> float:
            # The deviation of one value is 0; the library's own formula follows
            return super().s_object(x if x.size > 1 else x.repeat(2))

        def ssim(self, pred: np.ndarray, gt: np.ndarray) -> float:
            # An empty quadrant has weight 0; in one of a pixel nothing varies, which the library scores 1 elsewhere
            return super().ssim(pred, gt) if pred.size > 1 else 1.0

    return DefinedSmeasure


@cache
def _e_measure_class() -> Any:
    """pysodmetrics' class of E-measures, defined also for an image of one pixel, where it divides by N - 1 = 0."""
    from py_sod_metrics import Emeasure

    class DefinedEmeasure(Emeasure):
        def cal_changeable_em(self, pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
            measures: np.ndarray = super().cal_changeable_em(pred, gt)
            return measures if pred.size > 1 else measures * np.spacing(1)  # which the library adds to N - 1

    return DefinedEmeasure
