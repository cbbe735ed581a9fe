"""Losses for segmentation.

Each takes logits (b, k, H, W) and labels (b, H, W), and is the mean over images of a per-image loss, so that two
processes with half the batch give the gradients of one. Pixels with the ignored label count nowhere; an image without
any other pixel contributes 0. k = 1 is a binary task with labels 0 and 1. All compute in float32.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from convlora.errors import SettingsError
from convlora.objectives.averaging import mean_of_images, pixel_weight
from convlora.objectives.imbalance import focal_loss, focal_tversky_loss, tversky_loss
from convlora.objectives.multilabel import per_class

LossFunction = Callable[[Tensor, Tensor, int], Tensor]

_BORDER_WINDOW = 31  # pixels; of PraNet's structure loss
_BORDER_WEIGHT = 5.0


def structure_loss(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Binary cross-entropy + border-weighted IoU loss, as released.

    The released code means to weight the cross-entropy at borders too (PraNet's structure loss), but passes
    `reduce="none"`, which averages it first; the weights cancel. The published results used this.
    """
    logits, target, valid = _binary(logits, labels, ignore_index)
    cross_entropy = mean_of_images(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), valid)
    return (cross_entropy + _weighted_iou(logits, target, _border_weight(target, valid))).mean()


def weighted_structure_loss(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Structure loss as PraNet defines it: cross-entropy and IoU loss both weighted at borders."""
    logits, target, valid = _binary(logits, labels, ignore_index)
    weight = _border_weight(target, valid)
    cross_entropy = mean_of_images(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), weight)
    return (cross_entropy + _weighted_iou(logits, target, weight)).mean()


def balanced_bce_loss(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Binary cross-entropy in which foreground and background of an image weigh one half each (shadow detection).

    In an image that has only one of them, that one weighs all.
    """
    logits, target, valid = _binary(logits, labels, ignore_index)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    sides = [valid * target, valid * (1 - target)]
    present = torch.stack([side.flatten(1).any(1) for side in sides]).float()
    losses = torch.stack([mean_of_images(cross_entropy, side) for side in sides])
    return ((losses * present).sum(0) / present.sum(0).clamp(min=1)).mean()


def dice_ce_loss(
    logits: Tensor, labels: Tensor, ignore_index: int = 255, *, class_weights: Sequence[float] | None = None
) -> Tensor:
    """Cross-entropy + soft Dice loss averaged over the classes (over the foreground, if binary).

    `class_weights`, one number a class, background first, makes the cross-entropy a weighted mean: a pixel weighs as
    its true class.
    """
    if logits.shape[1] == 1:
        logits, target, valid = _binary(logits, labels, ignore_index)
        weight = pixel_weight(target.long(), valid, class_weights)
        cross_entropy = mean_of_images(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), weight)
        return (cross_entropy + _dice(logits.sigmoid()[:, None], target[:, None], valid)).mean()
    logits = logits.float()
    valid = (labels != ignore_index).float()
    known = torch.where(labels == ignore_index, 0, labels).long()
    log_probability = logits.log_softmax(1)
    weight = pixel_weight(known, valid, class_weights)
    cross_entropy = mean_of_images(-log_probability.gather(1, known[:, None]).squeeze(1), weight)
    one_hot = F.one_hot(known, logits.shape[1]).movedim(-1, 1).float()
    return (cross_entropy + _dice(log_probability.exp(), one_hot, valid)).mean()


LOSSES: dict[str, LossFunction] = {
    "structure": structure_loss,
    "structure-weighted": weighted_structure_loss,
    "balanced-bce": balanced_bce_loss,
    "dice-ce": dice_ce_loss,
    "focal": focal_loss,
    "tversky": tversky_loss,
    "focal-tversky": focal_tversky_loss,
}
"""Of classes that exclude each other."""
MULTILABEL_LOSSES: dict[str, LossFunction] = {
    "dice-bce": dice_ce_loss,
    "focal": focal_loss,
    "tversky": tversky_loss,
    "focal-tversky": focal_tversky_loss,
}
"""Of classes that may overlap: the binary loss that is averaged over the classes."""
_BINARY = ("structure", "structure-weighted", "balanced-bce")
_WEIGHTED = ("dice-ce", "focal")  # with a cross-entropy in which pixels can weigh as their class


def default_loss(num_classes: int, *, multilabel: bool = False) -> str:
    """The loss for so many classes where none is chosen."""
    return "dice-bce" if multilabel else "structure" if num_classes == 2 else "dice-ce"


def get_loss(name: str, *, multilabel: bool = False, class_weights: Sequence[float] | None = None) -> LossFunction:
    """The loss of this name.

    Args:
        name: In `LOSSES`, or in `MULTILABEL_LOSSES`.
        multilabel: Whether the classes may overlap; then labels are bit fields, and there is a mask a class.
        class_weights: One number a class, background first.

    Raises:
        SettingsError: There is none; the message suggests the nearest.
    """
    known = MULTILABEL_LOSSES if multilabel else LOSSES
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        kind = " where classes may overlap" if multilabel else ""
        raise SettingsError(f"loss={name!r} must be one of {', '.join(known)}{kind}.{hint}")
    if multilabel:
        return per_class(known[name], class_weights)
    if class_weights is None:
        return known[name]
    weighted: Callable[..., Tensor] = known[name]
    return functools.partial(weighted, class_weights=class_weights)


def check_loss(
    name: str, num_masks: int, *, multilabel: bool = False, class_weights: Sequence[float] | None = None
) -> None:
    """Raise a `SettingsError` if there is no such loss, or it does not fit.

    Args:
        name: Of the loss.
        num_masks: Of the decoder: 1 for two classes; else one a class, but none for the background if they may overlap.
        multilabel: Whether they may.
        class_weights: One number a class, background first; None for none.
    """
    get_loss(name, multilabel=multilabel)
    if num_masks > 1 and name in _BINARY:
        others = ", ".join(other for other in LOSSES if other not in _BINARY)
        raise SettingsError(f"loss={name!r} is for two classes, and there are {num_masks}. Use one of {others}.")
    if class_weights is None:
        return
    if not multilabel and name not in _WEIGHTED:
        raise SettingsError(f"class_weights have no place in loss={name!r}; use one of {', '.join(_WEIGHTED)}.")
    count = num_masks + 1 if multilabel or num_masks == 1 else num_masks
    good = all(math.isfinite(weight) and weight >= 0 for weight in class_weights)
    if len(class_weights) != count or not good or not sum(list(class_weights)[int(multilabel) :]) > 0:
        but = ", of which that of the background has no effect" if multilabel else ""
        raise SettingsError(
            f"class_weights={list(class_weights)} must be {count} finite numbers, one a class with the background "
            f"first{but}, none below 0 and not all of them 0."
        )


def _binary(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, 0/1 target and 0/1 validity, each (b, H, W) float32; ignored pixels have target 0."""
    if logits.shape[1] != 1:
        raise ValueError(f"a binary loss takes one mask, got {logits.shape[1]}")
    valid = labels != ignore_index
    return logits[:, 0].float(), (labels.bool() & valid).float(), valid.float()


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
