"""Losses for classes of very different sizes; conventions as in `convlora.objectives.losses`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from convlora.objectives.averaging import mean_of_images, pixel_weight

GAMMA = 2.0
"""Exponent of the focal loss (Lin et al., ICCV 2017)."""
FALSE_POSITIVES, FALSE_NEGATIVES = 0.3, 0.7
"""Their weights in the Tversky index (Salehi et al., MLMI 2017): what is missed counts more."""
TVERSKY_GAMMA = 0.75
"""Exponent of the focal Tversky loss (Abraham and Khan, ISBI 2019; there 1 / γ with γ = 4/3)."""
_SMOOTH = 1e-5  # an absent class that is not predicted either has index 1
_FLAT = 1e-6  # below it the power of 0.75, whose slope at 0 is infinite, is taken as 0


def focal_loss(
    logits: Tensor, labels: Tensor, ignore_index: int = 255, *, class_weights: Sequence[float] | None = None
) -> Tensor:
    """−(1 − p)² log p of the true class, mean over the pixels; p is a sigmoid for one mask, else a softmax.

    Args:
        logits, labels, ignore_index: As all losses take them.
        class_weights: One number a class, background first; a pixel weighs as its true class, in a weighted mean.
    """
    log_p, known, valid = _true_class(logits, labels, ignore_index)
    losses = -(torch.expm1(log_p).neg() ** GAMMA) * log_p
    return mean_of_images(losses, pixel_weight(known, valid, class_weights)).mean()


def tversky_loss(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """1 − TP / (TP + 0.3 FP + 0.7 FN), soft, averaged over the classes (of the foreground, if binary)."""
    return (1 - _tversky_index(logits, labels, ignore_index)).mean(1).mean()


def focal_tversky_loss(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """The Tversky loss of each class to the power of 0.75: classes that are nearly right weigh more than there."""
    losses = 1 - _tversky_index(logits, labels, ignore_index)
    counts = losses > _FLAT
    return (torch.where(counts, losses, 1) ** TVERSKY_GAMMA * counts).mean(1).mean()


def _true_class(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability of the true class float32, class ids with 0 for ignored pixels, and 0/1 validity: (b, H, W)."""
    logits = logits.float()
    valid = labels != ignore_index
    known = torch.where(valid, labels, 0).long()
    if logits.shape[1] == 1:
        log_p = F.logsigmoid(torch.where(known > 0, logits[:, 0], -logits[:, 0]))
    else:
        log_p = logits.log_softmax(1).gather(1, known[:, None]).squeeze(1)
    return log_p, known, valid.float()


def _tversky_index(logits: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """(b, k) of each class, or of the foreground; 1 for an image without a valid pixel."""
    logits = logits.float()
    valid = labels != ignore_index
    known = torch.where(valid, labels, 0).long()
    if logits.shape[1] == 1:
        probability, target = logits.sigmoid(), (known > 0)[:, None].float()
    else:
        probability, target = logits.softmax(1), F.one_hot(known, logits.shape[1]).movedim(-1, 1).float()
    weight = valid.float()[:, None]

    def total(values: Tensor) -> Tensor:
        return (values * weight).flatten(2).sum(2)

    hits = total(probability * target)
    wrong = FALSE_POSITIVES * total(probability * (1 - target)) + FALSE_NEGATIVES * total((1 - probability) * target)
    return (hits + _SMOOTH) / (hits + wrong + _SMOOTH)
