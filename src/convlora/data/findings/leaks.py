"""Images that are there twice: in several splits, or with two different masks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from convlora.data.findings.finding import Finding, Survey
from convlora.data.findings.near import near_pairs
from convlora.data.samples import counted, first_few

_GROUPS = (r"^(.*?)[^A-Za-z0-9]*\d+$", r"^([A-Za-z]*\d+)", r"^([^_]+)_", r"^([^-]+)-", r"^(.+)[_-][^_-]+$")
"""Patterns that people's file names follow: all but the last number; the first number; the part before a dash …"""

Pairs = Sequence[tuple[str, str]]


def leaks(survey: Survey) -> list[Finding]:
    """Equal images, and such that look the same, in different splits or with different masks."""
    equal, similar = _equal_pairs(survey), _similar_pairs(survey)
    return [*_across_splits(survey, equal, similar), *_contradictions(survey, equal), *_repeated(survey, equal)]


def group_pattern(names: Sequence[str], pairs: Pairs) -> str | None:
    """A pattern for --group that keeps the two names of each pair together and yet makes at least four groups."""
    for pattern in _GROUPS:
        matches = {name: re.search(pattern, name) for name in names}
        groups = {name: match.group(1) for name, match in matches.items() if match}
        sizes = defaultdict[str, int](int)
        for group in groups.values():
            sizes[group] += 1
        if len(groups) < len(names) or len(sizes) < 4 or max(sizes.values()) > len(names) / 2:
            continue
        if all(groups[one] == groups[other] for one, other in pairs):
            return pattern
    return None


def _equal_pairs(survey: Survey) -> list[tuple[str, str]]:
    """Each image of equal content with the first of them."""
    first: dict[str, str] = {}
    pairs = []
    for name, item in survey.measured.items():
        if (one := first.setdefault(item.digest, name)) != name:
            pairs.append((one, name))
    return pairs


def _similar_pairs(survey: Survey) -> list[tuple[str, str]]:
    """Pairs that look the same though their files differ."""
    names = list(survey.measured)
    if not names:
        return []
    pairs = near_pairs(np.stack([item.thumbnail for item in survey.measured.values()]))
    by_name = [(names[i], names[j]) for i, j in pairs]
    return [(a, b) for a, b in by_name if survey.measured[a].digest != survey.measured[b].digest]


def _across_splits(survey: Survey, equal: Pairs, similar: Pairs) -> list[Finding]:
    def apart(pairs: Pairs) -> list[tuple[str, str]]:
        splits = survey.split_of
        return [(a, b) for a, b in pairs if a in splits and b in splits and splits[a] != splits[b]]

    findings = []
    told = "so scores come out too good"
    if pairs := apart(equal):
        are = counted(len(pairs), "image is", "images are")
        text = f"{are} in several splits under different names, {told}: {_pairs_text(survey, pairs)}"
        findings.append(Finding("equal-across-splits", "harmful", text, _remedy(survey, pairs), _names(pairs)))
    if pairs := apart(similar):
        look = counted(
            len(pairs), "pair of images in different splits looks", "pairs of images in different splits look"
        )
        text = f"{look} the same, {told}: {_pairs_text(survey, pairs)}"
        findings.append(Finding("similar-across-splits", "harmful", text, _remedy(survey, pairs), _names(pairs)))
    return findings


def _remedy(survey: Survey, pairs: Pairs) -> str:
    if survey.splits_given:
        return "Give both images of a pair the same split where the splits are listed, or remove one of them."
    pattern = group_pattern(list(survey.measured), pairs)
    if pattern is None or survey.settings.group is not None:
        return (
            "Remove the copies; if they are slices, frames or crops of one thing, name it with --group, a pattern "
            "whose parentheses find it in the file's name, or list the splits in a CSV file."
        )
    return f"Keep them in one split: --group '{pattern}'"


def _contradictions(survey: Survey, equal: Pairs) -> list[Finding]:
    """Equal images whose masks hold different numbers of pixels."""
    pairs = [pair for pair in equal if not _same_masks(survey, pair)]
    if not pairs:
        return []
    are = counted(len(pairs), "image is", "images are")
    text = f"{are} there twice with different masks: {_pairs_text(survey, pairs)}"
    return [
        Finding(
            "contradicting-masks", "harmful", text, "Keep the right mask, and remove the other pair.", _names(pairs)
        )
    ]


def _same_masks(survey: Survey, pair: tuple[str, str]) -> bool:
    one, other = (survey.measured[name] for name in pair)
    return one.values == other.values


def _repeated(survey: Survey, equal: Pairs) -> list[Finding]:
    """Equal pairs within one split; images that only look alike may be slices or frames, which are meant."""
    within = [
        (a, b) for a, b in equal if survey.split_of.get(a) == survey.split_of.get(b, "") and _same_masks(survey, (a, b))
    ]
    if not within:
        return []
    text = f"{counted(len(within), 'image is', 'images are')} in one split twice: {_pairs_text(survey, within)}"
    return [Finding("repeated", "notable", text, "They count twice; remove the copies.", _names(within))]


def _pairs_text(survey: Survey, pairs: Pairs) -> str:
    def label(name: str) -> str:
        split = survey.split_of.get(name)
        return f"{name} ({split})" if split else name

    return first_few([f"{label(a)} and {label(b)}" for a, b in pairs], 2)


def _names(pairs: Pairs) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for pair in pairs for name in pair))
