"""All findings of a data set, the most harmful first."""

from __future__ import annotations

from convlora.data.findings.balance import (
    all_inverted,
    brightness_shift,
    dark_images,
    empty_masks,
    inverted_masks,
    rare_classes,
    unscored_classes,
)
from convlora.data.findings.finding import HARMS, Finding, Survey
from convlora.data.findings.leaks import leaks
from convlora.data.findings.objects import specks, tiny_objects
from convlora.data.findings.outlines import shifted_masks, stray_masks, unrelated_masks

_FINDERS = (
    leaks,
    inverted_masks,
    shifted_masks,
    empty_masks,
    unscored_classes,
    dark_images,
    unrelated_masks,
    tiny_objects,
    rare_classes,
    brightness_shift,
    all_inverted,
    stray_masks,
    specks,
)


def all_findings(survey: Survey) -> list[Finding]:
    """What every function of this package finds."""
    found = [finding for find in _FINDERS for finding in find(survey)]
    return sorted(found, key=lambda finding: HARMS.index(finding.harm))  # stable: else in the order above
