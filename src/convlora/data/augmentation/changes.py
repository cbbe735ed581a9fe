"""What augmentation may change, and sets of such changes for kinds of images; light to import."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Changes:
    """How much each random change may change; 0 or False leaves it out. The units are those of the settings."""

    flip_horizontal: bool = False
    flip_vertical: bool = False
    quarter_turns: bool = False
    rotate: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    blur: float = 0.0


COLOURS_AND_FLIPS = Changes(
    flip_horizontal=True, flip_vertical=True, rotate=15.0, scale=0.2, brightness=0.2, contrast=0.2, saturation=0.1
)
"""What is done if no preset is named."""

PRESETS = {
    # Up and down differ in photographs; light and distance vary most.
    "natural": Changes(flip_horizontal=True, rotate=10.0, scale=0.3, brightness=0.3, contrast=0.3, saturation=0.3),
    # A patient lies in one way, so no flip up and down, and left and right are not alike: a liver stays on its side.
    # Scanners differ in tone curve and noise; there is no colour to change.
    "medical": Changes(rotate=10.0, scale=0.15, brightness=0.1, contrast=0.2, gamma=0.3, noise=0.03),
    # A slide has no up, focus drifts, and stain and lamp vary.
    "microscopy": Changes(
        flip_horizontal=True,
        flip_vertical=True,
        quarter_turns=True,
        rotate=45.0,
        scale=0.1,
        brightness=0.2,
        contrast=0.2,
        saturation=0.1,
        noise=0.02,
        blur=1.0,
    ),
    # Seen from above there is no up; pixels have a fixed size on the ground, so little zoom; sun and haze vary.
    "aerial": Changes(
        flip_horizontal=True,
        flip_vertical=True,
        quarter_turns=True,
        scale=0.1,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        gamma=0.1,
    ),
    "none": Changes(),
}
