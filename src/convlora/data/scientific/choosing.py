"""Which intensity a whole data set is read with: decided once, and told."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from convlora.data.samples import Sample
from convlora.data.scientific.intensity import PERCENTILES, resolved
from convlora.data.scientific.nifti import NiftiVolume
from convlora.data.scientific.parts import StackImage
from convlora.data.scientific.stacks import Stack
from convlora.data.scientific.windows import given_window
from convlora.data.settings import ImageLimits

_LOOKED_AT = 3
"""Volumes whose header does not say whether they are CT, and whose values are looked at therefore."""


def with_intensity(samples: Sequence[Sample], rule: str) -> list[Sample]:
    """The same samples, their scientific images read with a rule; others stay as they are."""
    return [
        dataclasses.replace(sample, image=dataclasses.replace(sample.image, intensity=rule))
        if isinstance(sample.image, StackImage)
        else sample
        for sample in samples
    ]


def choose_intensity(samples: Sequence[Sample], rule: str, limits: ImageLimits) -> tuple[list[Sample], str, list[str]]:
    """Settle how the values of a data set become 8 bits.

    Args:
        samples: Of any images.
        rule: As the user set it; "auto" is settled here.
        limits: Of the images.

    Returns:
        The samples; the rule that all of them are read with ("auto" if there are several, or 8 bits only), for the
        model to keep; and notes that say which it is.

    Raises:
        ImageError: A volume that is looked at cannot be read.
    """
    stacks = list(dict.fromkeys(sample.image.stack for sample in samples if isinstance(sample.image, StackImage)))
    if not stacks:
        unused = [f"--intensity {rule} has no effect on pictures of formats that show what they hold"]
        return list(samples), rule, unused if rule != "auto" else []
    unsure = [stack for stack in stacks if isinstance(stack, NiftiVolume)]
    common = _common([resolved(stack, rule, limits) for stack in unsure[:_LOOKED_AT]])
    rules = dict[Stack, str]()
    for stack in stacks:
        alike = common is not None and isinstance(stack, NiftiVolume) and stack.dtype != "uint8"
        rules[stack] = common if alike and common is not None else resolved(stack, rule, limits)
    found = [
        dataclasses.replace(sample, image=dataclasses.replace(sample.image, intensity=rules[sample.image.stack]))
        if isinstance(sample.image, StackImage)
        else sample
        for sample in samples
    ]
    kept = set(rules.values())
    return found, kept.pop() if len(kept) == 1 else "auto", _notes(rules)


def _common(rules: Sequence[str]) -> str | None:
    """What most of some volumes are, or the first of these; None if there are none but of 8 bits."""
    counts = Counter(rule for rule in rules if rule != "auto")
    return counts.most_common(1)[0][0] if counts else None


def _notes(rules: dict[Stack, str]) -> list[str]:
    counts = Counter(rules.values())
    return [f"values of {count} {'file' if count == 1 else 'files'}: {_told(rule)}" for rule, count in counts.items()]


def _told(rule: str) -> str:
    window = given_window(rule)
    if window is not None:
        name = f"{rule}, " if "," not in rule else ""
        return f"{name}black at {window.low:g} and white at {window.high:g} (--intensity {rule})"
    low, high = PERCENTILES
    return {
        "auto": "8-bit values as they are",
        "percentile": f"black at the {low} and white at the {high} percentile of each (--intensity percentile)",
        "full": "all values that the type can hold; of floating-point numbers, the smallest to the largest "
        "(--intensity full)",
    }[rule]
