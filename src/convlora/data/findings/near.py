"""Pairs of images that show the same though their files differ: saved again, resized, brightened, the next slice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from convlora.data.findings.measuring import THUMBNAIL

_SIDE = 16  # rows and columns that are compared
_ALIKE = 0.985
"""Correlation of two grey thumbnails from which on they count as the same picture. Saved as JPEG of quality 40, at two
thirds of the size or with other contrast an image correlates with itself by 0.99 and more."""
_ALIKE_BEYOND_LAYOUT = (
    0.9  # the same after the mean of all images is taken off, which pictures of one kind have in common
)
_ENOUGH_FOR_A_MEAN = 20
_LEAST_SPREAD = 2.0  # levels; a flatter thumbnail shows nothing to compare
_EXACT = 4096  # images; more are sorted into buckets, and compared within them only
_BANDS, _BITS = 16, 12
_ROWS = 512


def near_pairs(thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of images that look the same.

    Up to 4,096 images all pairs are compared. Of more images those whose random projections have the same signs in one
    of 16 bands of 12: pairs that correlate by 0.98 share a band in 99.99 of 100 cases.

    Args:
        thumbnails: uint8 (n, 32, 32).
    """
    parts = THUMBNAIL // _SIDE
    vectors = thumbnails.reshape(-1, _SIDE, parts, _SIDE, parts).mean((2, 4), dtype=np.float32).reshape(-1, _SIDE**2)
    usable = np.flatnonzero(vectors.std(1) >= _LEAST_SPREAD)
    if len(usable) < 2:
        return []
    looks = _unit(vectors[usable] - vectors[usable].mean(1, keepdims=True))
    beyond = _unit(looks - looks.mean(0)) if len(usable) >= _ENOUGH_FOR_A_MEAN else None
    buckets = [np.arange(len(usable))] if beyond is None or len(usable) <= _EXACT else _buckets(beyond)
    found = {
        (int(usable[i]), int(usable[j])) for bucket in buckets for i, j in _alike(bucket, looks, beyond)
    }  # usable ascends, and so do buckets: i < j
    return sorted(found)


def _alike(bucket: np.ndarray, looks: np.ndarray, beyond: np.ndarray | None) -> Iterator[tuple[int, int]]:
    own = looks[bucket]
    for start in range(0, len(bucket), _ROWS):
        alike = own[start : start + _ROWS] @ own[start:].T >= _ALIKE
        rows, columns = np.nonzero(np.triu(alike, 1))
        rows, columns = bucket[rows + start], bucket[columns + start]
        if beyond is not None:
            keep = np.einsum("ij,ij->i", beyond[rows], beyond[columns]) >= _ALIKE_BEYOND_LAYOUT
            rows, columns = rows[keep], columns[keep]
        yield from zip(rows.tolist(), columns.tolist(), strict=True)


def _buckets(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Positions that share a band of signs, ascending."""
    rng = np.random.default_rng(0)
    for _ in range(_BANDS):
        signs = vectors @ rng.standard_normal((vectors.shape[1], _BITS), dtype=np.float32) > 0
        keys = signs @ (1 << np.arange(_BITS))
        order = np.argsort(keys, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            if len(bucket) > 1:
                yield bucket


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
