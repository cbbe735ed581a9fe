"""Predictions of the test images as PNG pictures, for the pages."""

from __future__ import annotations

import numpy as np
from PIL import Image


def as_picture(prediction: np.ndarray, *, multilabel: bool) -> Image.Image:
    """Class ids (H, W) as grey; bit fields, which may have 30 bits, as the four bytes of each in RGBA."""
    if not multilabel:
        return Image.fromarray(prediction.astype(np.uint8))
    fields = np.ascontiguousarray(prediction, dtype="<i4")
    return Image.fromarray(fields.view(np.uint8).reshape(*fields.shape, 4))


def from_picture(picture: Image.Image) -> np.ndarray:
    """What `as_picture` drew: uint8 or int32 (H, W)."""
    values = np.array(picture)
    return values if values.ndim == 2 else values.view("<i4")[..., 0]
