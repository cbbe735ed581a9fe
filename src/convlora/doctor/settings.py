"""Everything that can be set about `convlora doctor`; without torch, so that its help is quick."""

from __future__ import annotations

from dataclasses import dataclass

from convlora.data.settings import channel_problems
from convlora.errors import SettingsError
from convlora.training.settings import PRECISIONS


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """What should be trained."""

    model: str = "sam-tiny"
    """SAM to start from: sam-tiny (embedded), mobile-sam (after convlora convert), a folder, or a name on the model
    hub."""
    images: str | None = None
    """Folder of images, or a CSV file, for the length of an epoch."""
    masks: str | None = None
    """Folder of masks, for the command; not with a CSV file."""
    channels: int | None = None
    """Raw channels of the images, 1 to 16; default RGB."""
    precision: str = "auto"
    """auto: bf16 where the hardware has it, fp16 on older GPUs, else fp32; or one of these."""
    device: str = "auto"
    """auto takes a GPU if there is one; cpu."""

    def __post_init__(self) -> None:
        """Raise one `SettingsError` that lists everything wrong with the values."""
        choices = {"precision": PRECISIONS, "device": ("auto", "cpu")}
        problems = [
            f"{name}={getattr(self, name)!r} must be one of {', '.join(allowed)}"
            for name, allowed in choices.items()
            if getattr(self, name) not in allowed
        ]
        problems += channel_problems(self.channels, "data", None)
        if self.masks is not None and self.images is None:
            problems.append(f"masks={self.masks!r} is given, but not their images; give --images, too")
        if problems:
            raise SettingsError("; ".join(problems) + ".")
