"""Classes in colour."""

from __future__ import annotations

import numpy as np

# Okabe and Ito's palette, which colour-blind readers can tell apart; then it repeats, darker
_PALETTE = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)],
    dtype=np.uint8,
)
_OPACITY = 0.45


def class_colour(class_id: int) -> tuple[int, int, int]:
    """RGB colour of a class from 1 on; the background has none."""
    turn, index = divmod(class_id - 1, len(_PALETTE))
    red, green, blue = (_PALETTE[index] * 0.7**turn).astype(np.uint8)
    return int(red), int(green), int(blue)


def overlay(image: np.ndarray, ids: np.ndarray, ignore_index: int = 255) -> np.ndarray:
    """An image with its classes tinted and outlined.

    Args:
        image: uint8 (H, W, 3), RGB.
        ids: (H, W) class ids; 0 and `ignore_index` are left as they are.

    Returns:
        uint8 (H, W, 3).
    """
    if ids.shape != image.shape[:2]:
        raise ValueError(f"classes of {ids.shape} for an image of {image.shape[:2]}")
    result = image.copy()
    edges = _edges(ids)
    for class_id in np.unique(ids):
        if class_id in (0, ignore_index):
            continue
        colour = np.array(class_colour(int(class_id)))
        inside = ids == class_id
        result[inside] = (image[inside] * (1 - _OPACITY) + colour * _OPACITY).astype(np.uint8)
        result[inside & edges] = colour
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
