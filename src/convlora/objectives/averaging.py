"""Means over the pixels of each image, of which not all count."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def mean_of_images(values: Tensor, weight: Tensor) -> Tensor:
    """(b,) weighted mean of each image (b, H, W); 0 where all weights are 0."""
    total = weight.flatten(1).sum(1)
    return (values * weight).flatten(1).sum(1) / torch.where(total > 0, total, 1)


def pixel_weight(known: Tensor, valid: Tensor, class_weights: Sequence[float] | None) -> Tensor:
    """(b, H, W) weight of each pixel: that of its true class, 0 if it is ignored.

    Args:
        known: Class ids, any where ignored.
        valid: 1 for pixels that count, else 0.
        class_weights: One number a class; None weighs all alike.
    """
    return valid if class_weights is None else valid * valid.new_tensor(list(class_weights))[known]
