"""Losses for segmentation.

Each takes logits (b, k, H, W) and labels (b, H, W), and is the mean over images of a per-image loss, so that two
processes with half the batch give the gradients of one. Pixels with the ignored label count nowhere; an image without
any other pixel contributes 0. k = 1 is a binary task with labels 0 and 1. All compute in float32.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from convlora.errors import SettingsError

LossFunction = Callable[[Tensor, Tensor, int], Tensor]

_BORDER_WINDOW = 31  # pixels; of PraNet's structure loss
_BORDER_WEIGHT = 5.0


def structure_loss(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Binary cross-entropy + border-weighted IoU loss, as released.

    The released code means to weight the cross-entropy at borders too (PraNet's structure loss), but passes
    `reduce="none"`, which averages it first; the weights cancel. The published results used this.
    """
    logits, target, valid = _binary(logits, labels, ignore_index)
    cross_entropy = _mean(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), valid)
    return (cross_entropy + _weighted_iou(logits, target, _border_weight(target, valid))).mean()


def weighted_structure_loss(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Structure loss as PraNet defines it: cross-entropy and IoU loss both weighted at borders."""
    logits, target, valid = _binary(logits, labels, ignore_index)
    weight = _border_weight(target, valid)
    cross_entropy = _mean(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), weight)
    return (cross_entropy + _weighted_iou(logits, target, weight)).mean()


def balanced_bce_loss(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Binary cross-entropy in which foreground and background of an image weigh one half each (shadow detection).

    In an image that has only one of them, that one weighs all.
    """
    logits, target, valid = _binary(logits, labels, ignore_index)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    sides = [valid * target, valid * (1 - target)]
    present = torch.stack([side.flatten(1).any(1) for side in sides]).float()
    losses = torch.stack([_mean(cross_entropy, side) for side in sides])
    return ((losses * present).sum(0) / present.sum(0).clamp(min=1)).mean()


def dice_ce_loss(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Cross-entropy + soft Dice loss averaged over the classes (over the foreground, if binary)."""
    if logits.shape[1] == 1:
        logits, target, valid = _binary(logits, labels, ignore_index)
        cross_entropy = _mean(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), valid)
        return (cross_entropy + _dice(logits.sigmoid()[:, None], target[:, None], valid)).mean()
    logits = logits.float()
    valid = (labels != ignore_index).float()
    known = torch.where(labels == ignore_index, 0, labels).long()
    log_probability = logits.log_softmax(1)
    cross_entropy = _mean(-log_probability.gather(1, known[:, None]).squeeze(1), valid)
    one_hot = F.one_hot(known, logits.shape[1]).movedim(-1, 1).float()
    return (cross_entropy + _dice(log_probability.exp(), one_hot, valid)).mean()


LOSSES: dict[str, LossFunction] = {
    "structure": structure_loss,
    "structure-weighted": weighted_structure_loss,
    "balanced-bce": balanced_bce_loss,
    "dice-ce": dice_ce_loss,
}


def get_loss(name: str) -> LossFunction:
    """The loss of this name.

    Raises:
        SettingsError: There is none; the message suggests the nearest.
    """
    if name not in LOSSES:
        near = difflib.get_close_matches(name, LOSSES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise SettingsError(f"loss={name!r} must be one of {', '.join(LOSSES)}.{hint}")
    return LOSSES[name]


def check_loss(name: str, num_masks: int) -> None:
    """Raise a `SettingsError` if there is no such loss, or it is binary and there are several masks."""
    get_loss(name)
    if num_masks > 1 and name != "dice-ce":
        raise SettingsError(f"loss={name!r} is for two classes, and there are {num_masks}. Use loss='dice-ce'.")


def _binary(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, 0/1 target and 0/1 validity, each (b, H, W) float32; ignored pixels have target 0."""
    if logits.shape[1] != 1:
        raise ValueError(f"a binary loss takes one mask, got {logits.shape[1]}")
    valid = labels != ignore_index
    return logits[:, 0].float(), (labels.bool() & valid).float(), valid.float()


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """(b,) weighted mean of each image; 0 where all weights are 0."""
    total = weight.flatten(1).sum(1)
    return (values * weight).flatten(1).sum(1) / torch.where(total > 0, total, 1)


def _border_weight(target: Tensor, valid: Tensor) -> Tensor:
    """1 + 5·|local mean − target| in a window of 31 × 31; ignored pixels count as background around, 0 themselves."""
    pad = _BORDER_WINDOW // 2
    # Rows then columns: equal to the square window up to rounding, 31 times fewer additions
    local = F.avg_pool2d(target[:, None], (_BORDER_WINDOW, 1), stride=1, padding=(pad, 0))
    local = F.avg_pool2d(local, (1, _BORDER_WINDOW), stride=1, padding=(0, pad))[:, 0]
    return (1 + _BORDER_WEIGHT * (local - target).abs()) * valid


def _weighted_iou(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """(b,) 1 − (intersection + 1) / (union + 1), pixels weighted; 0 for an image without weight."""
    probability = logits.sigmoid()
    intersection = (probability * target * weight).flatten(1).sum(1)
    total = ((probability + target) * weight).flatten(1).sum(1)
    return 1 - (intersection + 1) / (total - intersection + 1)


def _dice(probability: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """(b,) 1 − soft Dice, averaged over the classes of (b, k, H, W); 0 for an image without a valid pixel."""
    intersection = (probability * target * valid[:, None]).flatten(2).sum(2)
    total = ((probability + target) * valid[:, None]).flatten(2).sum(2)
    smooth = 1e-5  # an absent class that is not predicted either scores 1
    return (1 - (2 * intersection + smooth) / (total + smooth)).mean(1)
