"""Everything that can be set about a check; light to import, because the command line's help needs it."""

from __future__ import annotations

from dataclasses import dataclass

from convlora.data.augmentation.settings import AugmentationSettings
from convlora.data.settings import DataSettings
from convlora.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class CheckSettings(DataSettings):
    """A check of a data set."""

    output: str | None = None
    """Folder for a page with pictures, check.html, and check.json; default none: a check only looks."""
    json: bool = False
    """Print what was found as JSON instead of text."""
    strict: bool = False
    """Exit with code 3 if there is a harmful finding, too."""
    image_size: int = 512
    """Side of the model's input in pixels, which objects are held against (sam-tiny 512, SAM 1024)."""
    tile: int | None = None
    """Side of the crops that the model is to see instead of whole images, in pixels."""
    augment: bool = False
    """Show on the page what augmentation makes of some images."""
    augmentation: AugmentationSettings = AugmentationSettings()
    """What --augment shows."""

    def problems(self) -> list[str]:
        """Everything wrong with the values, one sentence each; empty if they can be used."""
        problems = [*super().problems(), *self.augmentation.problems()]
        if self.image_size < 1:
            problems.append(f"image_size={self.image_size} must be at least 1")
        if self.tile is not None and self.tile < 1:
            problems.append(f"tile={self.tile} must be at least 1")
        if self.augment and self.output is None:
            problems.append("augment shows pictures on a page: give its folder with --output")
        return problems


def validate(settings: CheckSettings) -> None:
    """Raise one `SettingsError` that lists everything wrong with the values."""
    if problems := settings.problems():
        raise SettingsError("; ".join(problems) + ".")
