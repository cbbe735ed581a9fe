"""The set loss of Mask2Former (Cheng et al., CVPR 2022), for semantic masks with pixels that do not count.

Each class of an image is a mask to be found. The Hungarian method matches every one of them with a predicted mask;
matched masks learn mask and class, the others the class "no object".

The terms are those of transformers' `Mask2FormerLoss`, and the points are drawn in its proportions. That class itself
knows no ignored pixels and draws points anywhere; here they are drawn among the pixels that count. It also divides by
the masks in the batches of all processes; here each image is a mean of its own, as in `convlora.objectives.losses`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from transformers.models.mask2former.modeling_mask2former import (
    dice_loss,
    pair_wise_dice_loss,
    pair_wise_sigmoid_cross_entropy_loss,
    sigmoid_cross_entropy_loss,
)

CLASS_COST, MASK_COST, DICE_COST = 2.0, 5.0, 5.0  # of the matching: Mask2Former's
# Of the loss: what the released code is configured to. It never multiplies with them, so its terms weigh 1, 1, 1.
CLASS_WEIGHT, MASK_WEIGHT, DICE_WEIGHT = 10.0, 5.0, 5.0
NO_OBJECT_WEIGHT = 0.1  # of the tokens without a match in the cross-entropy of the classes
NUM_POINTS = 112 * 112
OVERSAMPLE = 3  # candidates for each point
IMPORTANCE = 0.75  # of the points are the candidates nearest to a predicted border


def set_loss(mask_logits: Tensor, class_logits: Tensor, labels: Tensor, ignore_index: int = 255) -> Tensor:
    """Matched masks against the classes of each image: 10 · cross-entropy + 5 · binary cross-entropy + 5 · Dice.

    Args:
        mask_logits: (b, q, h, w).
        class_logits: (b, q, K + 1), the last for "no object".
        labels: (b, H, W) class ids in any size that covers the same area.
        ignore_index: Label of pixels that count nowhere: neither in the matching nor in the loss.

    Returns:
        Mean over the images, in float32; an image without a valid pixel contributes 0. With more than `NUM_POINTS`
        valid pixels it depends on torch's generator.

    Raises:
        ValueError: A label is no class; K would silently be learnt as "no object".
    """
    with torch.autocast(mask_logits.device.type, enabled=False):  # sums over thousands of points want float32
        triples = zip(mask_logits.float(), class_logits.float(), labels, strict=True)
        return torch.stack([_image_loss(*triple, ignore_index) for triple in triples]).mean()


def _image_loss(masks: Tensor, classes: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    valid = (labels != ignore_index).flatten().nonzero()[:, 0]
    if not len(valid):
        return 0 * (masks.sum() + classes.sum())  # with a gradient: every process of a group must have one
    queries, ids = match(masks, classes, labels, valid)
    matched = masks[queries]
    pixels = _border_points(matched.detach(), valid, labels.shape)
    predicted, truth = values_at(matched, pixels, labels.shape), _masks_at(labels, pixels, ids)
    wanted = torch.full_like(classes[:, 0], classes.shape[1] - 1, dtype=torch.long)
    wanted[queries] = ids
    weight = torch.ones_like(classes[0])
    weight[-1] = NO_OBJECT_WEIGHT
    return (
        CLASS_WEIGHT * F.cross_entropy(classes, wanted, weight)
        + MASK_WEIGHT * sigmoid_cross_entropy_loss(predicted, truth, len(queries))
        + DICE_WEIGHT * dice_loss(predicted, truth, len(queries))
    )


@torch.no_grad()
def match(masks: Tensor, classes: Tensor, labels: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The matching of least cost between predicted masks and the classes of one image.

    Args:
        masks: (q, h, w) logits.
        classes: (q, K + 1) logits.
        labels: (H, W) class ids.
        valid: (n,) flat indices of the pixels that count, n > 0.

    Returns:
        Numbers of the matched masks (m,), and the class of each (m,); m = min(q, classes in the image).
    """
    ids = labels.flatten()[valid].unique().long()
    count = classes.shape[1] - 1
    if ids[0] < 0 or ids[-1] >= count:
        raise ValueError(f"labels hold the classes {ids.tolist()}; give 0 to {count - 1}, or the ignored label.")
    pixels = _draw(valid, 1, NUM_POINTS)
    predicted, truth = values_at(masks, pixels, labels.shape), _masks_at(labels, pixels, ids)
    cost = (
        MASK_COST * pair_wise_sigmoid_cross_entropy_loss(predicted, truth)
        + DICE_COST * pair_wise_dice_loss(predicted, truth)
        - CLASS_COST * classes.softmax(-1)[:, ids]
    )
    largest = torch.finfo(cost.dtype).max  # a NaN must reach the loss, where training stops with a message
    queries, columns = linear_sum_assignment(cost.nan_to_num(largest, largest, largest).cpu().numpy())
    return torch.as_tensor(queries, device=ids.device), ids[torch.as_tensor(columns, device=ids.device)]


def values_at(maps: Tensor, pixels: Tensor, size: tuple[int, ...]) -> Tensor:
    """Values that maps (n, h, w), resized to `size` (H, W) by `F.interpolate` (bilinear), have at some pixels.

    Args:
        maps: The maps.
        pixels: Flat indices into (H, W): (n, P), or (1, P) for the same ones in all maps.
        size: (H, W).

    Returns:
        (n, P).
    """
    height, width = size
    columns, rows = (2 * (pixels % width) + 1) / width - 1, (2 * (pixels // width) + 1) / height - 1
    grid = torch.stack([columns, rows], dim=-1).to(maps)[:, :, None]
    # (1, P) sees the maps as channels of one image, (n, P) as n images
    images = maps[None] if len(pixels) == 1 else maps[:, None]
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False).flatten(0, 1)[..., 0]


def _masks_at(labels: Tensor, pixels: Tensor, ids: Tensor) -> Tensor:
    """(m, P) 1.0 where the class of `ids` (m,) is at pixels (m, P) or (1, P), else 0.0."""
    return (labels.flatten()[pixels] == ids[:, None]).float()


def _draw(valid: Tensor, rows: int, count: int) -> Tensor:
    """(rows, count) valid pixels drawn with replacement; all of them, once, where there are not that many."""
    if len(valid) <= NUM_POINTS:
        return valid.expand(rows, -1)
    return valid[torch.randint(len(valid), (rows, count), device=valid.device)]


def _border_points(masks: Tensor, valid: Tensor, size: tuple[int, ...]) -> Tensor:
    """(m, P) valid pixels for each mask (m, h, w): most of them where it is undecided, the others anywhere."""
    if len(valid) <= NUM_POINTS:
        return _draw(valid, len(masks), NUM_POINTS)
    candidates = _draw(valid, len(masks), OVERSAMPLE * NUM_POINTS)
    undecided = -values_at(masks, candidates, size).abs()
    chosen = int(IMPORTANCE * NUM_POINTS)
    nearest = candidates.gather(1, undecided.topk(chosen, dim=1).indices)
    return torch.cat([nearest, _draw(valid, len(masks), NUM_POINTS - chosen)], dim=1)
