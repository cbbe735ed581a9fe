"""Losses of classes that may overlap: each class is a binary task of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_IGNORED = 255  # of the binary tasks


def per_class(
    loss: Callable[[Tensor, Tensor, int], Tensor], class_weights: Sequence[float] | None = None
) -> Callable[[Tensor, Tensor, int], Tensor]:
    """A loss of one mask and labels 0 and 1 as the mean over classes that may overlap.

    Args:
        loss: Of logits (b, 1, H, W) and labels (b, H, W).
        class_weights: One number a class, background first, which has no mask and does not count.

    Returns:
        A loss of logits (b, k, H, W), and labels (b, H, W) whose bit c - 1 says whether a pixel is of class c.
    """

    def mean(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
        count = logits.shape[1]
        weights = torch.ones(count) if class_weights is None else torch.tensor(list(class_weights)[1:])
        weights = weights.to(logits.device, torch.float32)
        ignored = labels == ignore_index
        losses = [
            loss(logits[:, i : i + 1], torch.where(ignored, _IGNORED, labels >> i & 1), _IGNORED) for i in range(count)
        ]
        return (torch.stack(losses) * weights).sum() / weights.sum()

    return mean
