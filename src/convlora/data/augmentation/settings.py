"""How training images are changed at random; light to import, because the command line's help needs it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from convlora.data.augmentation.changes import COLOURS_AND_FLIPS, PRESETS, Changes


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """Random changes of the training images; their masks move along."""

    enabled: bool = True
    """false trains on the images as they are."""
    views: int | None = None
    """Number of different views of each image, used in turn by the epochs; default a new one each epoch."""
    preset: str | None = None
    """Changes that suit a kind of images: natural, medical, microscopy, aerial or none; what is set below overrides
    it. Default: flips, rotation by 15°, zoom by 0.2, brightness and contrast by 0.2 and saturation by 0.1."""
    flip_horizontal: bool | None = None
    """Swap left and right in half of the cases; default as the preset."""
    flip_vertical: bool | None = None
    """Swap top and bottom in half of the cases; default as the preset."""
    quarter_turns: bool | None = None
    """Turn by 0, 90, 180 or 270 degrees, exactly; default as the preset."""
    rotate: float | None = None
    """Largest rotation to either side, in degrees; default as the preset."""
    scale: float | None = None
    """Zoom between 1 / (1 + scale) and 1 + scale, log-uniform; default as the preset."""
    brightness: float | None = None
    """Largest relative change of the brightness, 0 to 1; default as the preset."""
    contrast: float | None = None
    """Largest relative change of the contrast, 0 to 1; default as the preset."""
    saturation: float | None = None
    """Largest relative change of the saturation, 0 to 1; default as the preset."""
    gamma: float | None = None
    """Exponent of the grey levels between 1 / (1 + gamma) and 1 + gamma, log-uniform; default as the preset."""
    noise: float | None = None
    """Largest standard deviation of Gaussian noise, as a part of the range of levels; default as the preset."""
    blur: float | None = None
    """Largest standard deviation of a Gaussian blur, in pixels of the image; default as the preset."""

    @property
    def changes(self) -> Changes:
        """What may change: as the preset has it, but for what is set."""
        base = COLOURS_AND_FLIPS if self.preset is None else PRESETS[self.preset]
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(Changes)}
        return dataclasses.replace(base, **{name: value for name, value in given.items() if value is not None})

    def written_out(self) -> AugmentationSettings:
        """The same changes with every value given, whatever the presets are elsewhere."""
        return dataclasses.replace(self, **dataclasses.asdict(self.changes))

    @property
    def repeats(self) -> bool:
        """Whether the same pixels come again in later epochs."""
        return not self.enabled or self.views is not None or self.changes == PRESETS["none"]

    def problems(self) -> list[str]:
        """Everything wrong with the values, one sentence each; empty if they can be used."""
        problems = (
            [] if self.views is None or self.views >= 1 else [f"augmentation.views={self.views} must be at least 1"]
        )
        if self.preset is not None and self.preset not in PRESETS:
            return [*problems, f"augmentation.preset={self.preset!r} must be one of {', '.join(PRESETS)}"]
        bounds = {"rotate": 180.0, "scale": 9.0, "gamma": 9.0, "blur": 20.0}
        bounds |= dict.fromkeys(("brightness", "contrast", "saturation", "noise"), 1.0)
        return problems + [
            f"augmentation.{name}={value} must be between 0 and {high:g}"
            for name, high in bounds.items()
            if not 0 <= (value := getattr(self.changes, name)) <= high
        ]
