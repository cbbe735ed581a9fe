"""Random pairs of a prediction and a truth, with everything that can be odd about one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IGNORED = 255
COUNT = 10_000
LARGEST = 32  # pixels a side


@dataclass(frozen=True)
class Pair:
    """A prediction and the truth of one image.

    Attributes:
        prediction: (H, W) class ids.
        truth: (H, W) class ids or `IGNORED`.
        probability: (H, W) of the foreground, 0…1; where it is above ½, the prediction of two classes is 1.
        classes: K.
    """

    prediction: np.ndarray
    truth: np.ndarray
    probability: np.ndarray
    classes: int

    @property
    def valid(self):
        return self.truth != IGNORED

    @property
    def counted(self):
        """Prediction and truth of the valid pixels, (n,) each."""
        return self.prediction[self.valid], self.truth[self.valid]


def random_pairs(classes=2, count=COUNT, seed=0):
    """Pairs of any size from 1 × 1 on; kinds of truth, prediction and ignored pixels meet in all combinations."""
    rng = np.random.default_rng((seed, classes))
    pairs = []
    for kind in range(count):
        size = tuple(rng.integers(1, LARGEST + 1, 2)) if kind % 10 else tuple(rng.integers(1, 4, 2))
        truth = _truth(rng, kind % 6, size, classes)
        probability = _probability(rng, kind // 6 % 6, truth == 1).astype(np.float32)
        prediction = (probability > 0.5).astype(np.int64)
        if classes > 2:
            prediction = np.where(rng.random(size) < rng.random(), truth, rng.integers(0, classes, size))
        share = (0, 0, rng.random(), rng.random(), rng.choice([0.95, 1]))[kind // 36 % 5]
        truth = np.where(rng.random(size) < share, IGNORED, truth)
        pairs.append(Pair(prediction, truth, probability, classes))
    return pairs


def _truth(rng, kind, size, classes):
    """Noise, boxes, discs in noise, one pixel, nothing, or all of one class."""
    truth = np.zeros(size, np.int64)
    rows, columns = np.mgrid[: size[0], : size[1]]
    centre = [rng.integers(side) for side in size]
    if kind == 0:
        truth[:] = rng.integers(0, classes, size)
    elif kind == 1:
        truth[centre[0] :, : centre[1] + 1] = rng.integers(1, classes)
    elif kind == 2:
        truth[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < rng.integers(2, 100)] = 1
        truth[rng.random(size) < 0.05] = classes - 1
    elif kind == 3:
        truth[centre[0], centre[1]] = rng.integers(1, classes)
    elif kind == 5:
        truth[:] = rng.integers(1, classes)
    return truth


def _probability(rng, kind, truth):
    """Noise, noise with many equal values, the truth more or less, the truth itself, its opposite, or one value."""
    noise = rng.random(truth.shape)
    return (
        lambda: noise,
        lambda: np.round(4 * noise) / 4,  # ½ among them
        lambda: 0.4 * noise + 0.6 * truth,
        lambda: truth.astype(float),
        lambda: 1.0 - truth,
        lambda: np.full(truth.shape, rng.choice([0.0, 0.25, 0.5, 1.0])),
    )[kind]()
