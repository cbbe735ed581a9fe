"""What the paper reports, and which of our scores stands beside it.

The figures are quoted second-hand from the paper's tables, each the mean of three runs with SAM ViT-H; others are not
known here. Where a score has several definitions, the first one listed for a set is that of the released code, which
averages IoU and balanced error rate over images; the others are there because the literature reports them. It has no
Dice: that the paper averages it alike is an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass

MODEL = "facebook/sam-vit-huge"
"""The paper's model."""
REMARK = "quoted second-hand from the paper's tables: mean of 3 runs, SAM ViT-H, scores at 1024×1024"
IN_PERCENT = frozenset({"ber", "ber_per_image"})
"""Scores of ours that are percentages already; the others are fractions."""
PLAIN = frozenset({"mae"})
"""Scores that are shown as fractions, as the literature does."""


@dataclass(frozen=True)
class Published:
    """What is reported on a set.

    Attributes:
        metrics: Names of `convlora.objectives.metrics.DEFINITIONS`, in the order of the table.
        figures: (test set, metric) → method → the paper's figure, in percent.
        picked_by: Validation score that picks the checkpoint in the released code; None where that is not known.
    """

    metrics: tuple[str, ...]
    figures: dict[tuple[str, str], dict[str, float]]
    picked_by: str | None


_SALIENCY = ("s_measure", "e_measure", "weighted_f", "mae")

PUBLISHED: dict[str, Published] = {
    "polyp": Published(
        _SALIENCY,
        {
            ("Kvasir", "s_measure"): {"lora": 91.2, "conv-lora": 92.0},
            ("CVC-ClinicDB", "s_measure"): {"lora": 90.7, "conv-lora": 91.3},
        },
        picked_by="s_measure",
    ),
    "isic2017": Published(
        ("iou_per_image", "dice_per_image", "iou", "dice"),
        {("ISIC 2017", "iou_per_image"): {"lora": 76.6, "conv-lora": 77.6}},
        picked_by="iou_per_image",
    ),
    "camo": Published(
        _SALIENCY,
        {
            ("CAMO", "s_measure"): {"lora": 88.0, "conv-lora": 88.3},
            ("CAMO", "weighted_f"): {"lora": 82.8, "conv-lora": 84.0},
        },
        picked_by="s_measure",
    ),
    "sbu-shadow": Published(
        ("ber_per_image", "ber"),
        {("SBU", "ber_per_image"): {"lora": 2.74, "conv-lora": 2.54}},
        picked_by="ber_per_image",
    ),
    "leaf": Published(
        ("iou_per_image", "dice_per_image", "iou", "dice"),
        {("Leaf", "dice_per_image"): {"lora": 83.6, "conv-lora": 84.3}},
        picked_by="iou_per_image",
    ),
    "road": Published(
        ("iou_per_image", "dice_per_image", "iou", "dice"),
        {("Massachusetts Roads", "iou_per_image"): {"lora": 62.2, "conv-lora": 62.6}},
        picked_by="iou_per_image",
    ),
    "trans10k": Published(
        ("miou", "pixel_accuracy"),
        {("Trans10K-v2", "miou"): {"decoder": 49.97, "lora": 66.01, "conv-lora": 67.09}},
        picked_by=None,
    ),
}


def as_shown(metric: str, value: float) -> float:
    """A score of ours in the unit that the paper uses."""
    return value if metric in IN_PERCENT | PLAIN else 100 * value
