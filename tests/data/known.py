"""Images and masks of known pixels, and their outlines."""

import numpy as np

NAMES = ("background", "a", "b")
COLOURS = ((0, 0, 0), (200, 30, 7), (9, 90, 255))
_rng = np.random.default_rng(5)
IDS = [np.where(_rng.random((9, 14)) < 0.6, _rng.integers(0, 3, (9, 14)), 0).astype(np.uint8) for _ in range(3)]
IMAGES = [_rng.integers(0, 256, (*ids.shape, 3), dtype=np.uint8) for ids in IDS]
NAMED = {"classes": list(NAMES)}


def parts_of(ids):
    """Class id, row, first and last column + 1 of every run of pixels in a row."""
    for class_id in (1, 2):
        for row, line in enumerate(ids == class_id):
            bounds = np.flatnonzero(np.diff(line.astype(int), prepend=0, append=0)).tolist()
            for left, right in zip(bounds[::2], bounds[1::2], strict=True):
                yield class_id, row, left, right


def corners(row, left, right):
    return [(left, row), (right, row), (right, row + 1), (left, row + 1)]
