"""Everything that can be set about an evaluation; without torch, so that `convlora evaluate --help` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from convlora.data.samples import SPLITS
from convlora.inference.settings import InferenceSettings


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(InferenceSettings):
    """Evaluation of a run, on its own test images or on others; for an adapter folder alone, images are needed."""

    images: str | None = None
    """Folder of images, or a CSV file; default the run's own test images."""
    masks: str | None = None
    """Folder of masks, paired with the images by stem; not with a CSV file."""
    mask_pattern: str | None = None
    """As --mask_pattern of `convlora train`, for images and masks whose names differ."""
    mask_format: str | None = None
    """How these masks say the classes, as --mask_format of convlora train; default as the run's if that is colours,
    else auto."""
    image_pattern: str | None = None
    """As --image_pattern of `convlora train`."""
    split: str = "test"
    """Which images are scored, where a CSV file or the run itself has splits: train, val or test."""
    output: str | None = None
    """Folder for metrics.json and report.html; default the run folder if its own test images are scored."""

    def problems(self) -> list[str]:
        """Everything wrong with the values, one sentence each; empty if they can be used."""
        problems = super().problems()
        if self.split not in SPLITS:
            problems.append(f"split={self.split!r} must be one of {', '.join(SPLITS)}")
        if self.masks is not None and self.images is None:
            problems.append(f"masks={self.masks!r} is given, but not their images; give --images, too")
        return problems
