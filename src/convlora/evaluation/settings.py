"""Everything that can be set about an evaluation; without torch, so that `convlora evaluate --help` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from convlora.data.samples import SPLITS
from convlora.errors import SettingsError
from convlora.inference.settings import check_inference


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Evaluation of a run."""

    run: str
    """Run folder, or the adapter folder in it (then images are needed)."""
    images: str | None = None
    """Folder of images, or a CSV file; default the run's own test images."""
    masks: str | None = None
    """Folder of masks, paired with the images by stem; not with a CSV file."""
    split: str = "test"
    """Which images are scored, where a CSV file or the run itself has splits: train, val or test."""
    output: str | None = None
    """Folder for metrics.json and report.html; default the run folder if its own test images are scored."""
    batch_size: int = 1
    """Images that are segmented at a time."""
    model: str | None = None
    """Base SAM, if it is not where it was during training."""
    device: str = "auto"
    """auto takes a GPU if there is one; cpu."""
    precision: str = "auto"
    """auto: bf16 where the hardware has it, fp16 on older GPUs, else fp32; or one of these."""
    max_megapixels: float = 64.0
    """Larger images are refused before they are decoded."""

    def __post_init__(self) -> None:
        """Raise a `SettingsError` for values that cannot be used."""
        check_inference(self.batch_size, self.max_megapixels, self.device)
        if self.split not in SPLITS:
            raise SettingsError(f"split={self.split!r} must be one of {', '.join(SPLITS)}.")
        if self.masks is not None and self.images is None:
            raise SettingsError(f"masks={self.masks!r} is given, but not their images; give --images, too.")
