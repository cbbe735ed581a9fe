"""Classes in colour."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from convlora.data.labels.bits import members, unpack
from convlora.data.labels.colours import Colour, class_colour

_OPACITY = 0.45


def overlay(
    image: np.ndarray,
    ids: np.ndarray,
    ignore_index: int = 255,
    *,
    colours: Mapping[int, Colour] | None = None,
    multilabel: bool = False,
) -> np.ndarray:
    """An image with its classes tinted and outlined.

    Args:
        image: uint8 (H, W, 3), RGB.
        ids: (H, W) class ids; 0 and `ignore_index` are left as they are.
        ignore_index: Of pixels without a class.
        colours: RGB of the classes by id; default those of `convlora.data.labels.colours`.
        multilabel: Whether `ids` are bit fields (`convlora.data.labels.bits`). Then pixels of several classes have the
            mean of their tints, and each class has its outline, that of a later class above that of an earlier one.

    Returns:
        uint8 (H, W, 3).
    """
    if ids.shape != image.shape[:2]:
        raise ValueError(f"classes of {ids.shape} for an image of {image.shape[:2]}")
    chosen = colours or {}
    result = image.copy()
    edges = _edges(ids)
    found = [value for value in np.unique(ids).tolist() if value not in (0, ignore_index)]
    for value in found:
        of_value = [chosen.get(c, class_colour(c)) for c in (members(value) if multilabel else (value,))]
        inside = ids == value
        colour = np.mean(of_value, axis=0)
        result[inside] = (image[inside] * (1 - _OPACITY) + colour * _OPACITY).astype(np.uint8)
        if not multilabel:
            result[inside & edges] = of_value[0]
    if multilabel:
        for class_id in sorted({class_id for value in found for class_id in members(value)}):
            inside = unpack(ids, class_id)
            result[inside & _edges(inside)] = chosen.get(class_id, class_colour(class_id))
    return result


def _edges(ids: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels with a neighbour of another class to the left, right, above or below."""
    edges = np.zeros(ids.shape, dtype=bool)
    rows, columns = ids[1:] != ids[:-1], ids[:, 1:] != ids[:, :-1]
    edges[1:] |= rows
    edges[:-1] |= rows
    edges[:, 1:] |= columns
    edges[:, :-1] |= columns
    return edges
