"""Masks in which a pixel may be of several classes: bit c - 1 of its value says whether it is of class c.

Rotating, flipping and resizing with the nearest neighbour take such values as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

IGNORED = -1
"""Value of pixels that count neither in training nor in scores; it is no set of classes."""
MOST_CLASSES = 30
"""Classes beside the background that an int32 has bits for."""


def bit(class_id: int) -> int:
    """The bit of a class from 1 on; 0 for the background, which is to be of no class."""
    return 1 << (class_id - 1) if class_id else 0


def members(value: int) -> tuple[int, ...]:
    """Class ids of a bit field, ascending; (0,), the background, if it has none."""
    return tuple(c for c in range(1, MOST_CLASSES + 1) if value & bit(c)) or (0,)


def pack(channels: Iterable[np.ndarray]) -> np.ndarray:
    """Bit fields int32 (H, W) of boolean masks (H, W), that of class 1 first, at least one and at most 30."""
    fields: np.ndarray | None = None
    for class_id, channel in enumerate(channels, 1):
        fields = np.zeros(channel.shape, dtype=np.int32) if fields is None else fields
        fields[channel] |= bit(class_id)
    if fields is None:
        raise ValueError("there is no channel")
    return fields


def unpack(fields: np.ndarray, class_id: int) -> np.ndarray:
    """Where a class from 1 on is: bool (H, W); nowhere among the ignored pixels."""
    inside: np.ndarray = (fields & bit(class_id) != 0) & (fields != IGNORED)
    return inside
