"""Objects too small for the model's input, and specks that are no objects."""

from __future__ import annotations

import numpy as np

from convlora.data.findings.finding import Finding, Survey
from convlora.data.findings.measuring import Measured
from convlora.data.samples import first_few

PATCH = 16
"""Side of the model's patches, in pixels of its input: what is smaller is one token among others."""
_SPECK = 3  # pixels
_TINY_SHARE = 0.25
_MOST_TINY = 0.5
_TILES, _INPUTS = (2048, 1024, 768, 512, 384, 256, 128), (512, 768, 1024, 1536)
_SPECKS_A_MASK = 2.0


def tiny_objects(survey: Survey) -> list[Finding]:
    """Many objects smaller than one patch of the model's input."""
    if survey.image_size is None:
        return []
    share, total = tiny_share(survey, survey.image_size, survey.tile)
    if total == 0 or share <= _TINY_SHARE:
        return []
    seen = f"in tiles of {survey.tile} pixels" if survey.tile else "in whole images"
    text = (
        f"{100 * share:.0f} % of {total:,} objects, seen {seen}, are smaller than one patch of the model "
        f"({PATCH}×{PATCH} pixels of its input of {survey.image_size})"
    )
    harm = "harmful" if share > _MOST_TINY else "notable"
    return [Finding("tiny-objects", harm, text, _remedy(survey, survey.image_size))]


def _remedy(survey: Survey, image_size: int) -> str:
    """The mildest step that leaves few tiny objects: tiles where images are larger than the input, else more input."""
    side = survey.tile or max(max(item.size) for item in survey.measured.values())
    tiles = [(f"--tile {tile}", image_size, tile) for tile in _TILES if tile < side and side > image_size]
    inputs = [(f"--image_size {size}", size, survey.tile) for size in _INPUTS if size > image_size]
    for flag, size, tile in [*tiles, *inputs]:
        if (share := tiny_share(survey, size, tile)[0]) <= _TINY_SHARE:
            return f"Train with {flag}; then {100 * share:.0f} % are."
    return "Neither tiles nor a larger input change that: enlarge the images, or leave the smallest objects out."


def tiny_share(survey: Survey, image_size: int, tile: int | None) -> tuple[float, int]:
    """Share of the objects that are smaller than a patch, specks left out, and the number of objects."""
    small = total = 0
    for item in _detailed(survey).values():
        zoom = image_size / (tile or max(item.size))
        areas, counts = object_areas(survey, item)
        counts = counts * (areas > _SPECK)
        total += int(counts.sum())
        small += int(counts[areas * zoom**2 < PATCH**2].sum())
    return (small / total if total else 0.0), total


def specks(survey: Survey) -> list[Finding]:
    """Components of up to three pixels, or holes of this size, in many masks."""
    by_name = {}
    for name, item in _detailed(survey).items():
        details = item.details
        if details is not None:
            by_name[name] = sum(int(counts[areas <= _SPECK].sum()) for areas, counts in details.objects.values())
    total = sum(by_name.values())
    worst = sorted((name for name in by_name if by_name[name]), key=lambda name: -by_name[name])
    if not by_name or total < _SPECKS_A_MASK * len(by_name) or len(worst) < 0.25 * len(by_name):
        return []
    text = (
        f"{total:,} specks and holes of 1 to {_SPECK} pixels in {len(worst)} of {len(by_name)} masks look like noise: "
        f"{first_few([f'{name} ({by_name[name]})' for name in worst])}"
    )
    remedy = "If they are, clean the masks, for example with scipy.ndimage.median_filter(mask, size=3)."
    return [Finding("specks", "hint", text, remedy, tuple(worst))]


def object_areas(survey: Survey, item: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Areas of one mask's objects, of all classes but the background, in pixels, and how many have each."""
    parts = item.details.objects.items() if item.details is not None else ()
    kept = [part for value, part in parts if survey.classes_of(value) not in ((), (0,))]
    if not kept:
        return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
    return np.concatenate([areas for areas, _ in kept]), np.concatenate([counts for _, counts in kept])


def _detailed(survey: Survey) -> dict[str, Measured]:
    return {name: item for name, item in survey.measured.items() if item.details is not None}
