"""Divide samples into training, validation and test."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence

from convlora.data.samples import SPLITS, Sample, first_few
from convlora.data.settings import DataSettings
from convlora.errors import DataError, SettingsError


def split_samples(
    samples: Sequence[Sample], settings: DataSettings, *, need_train: bool = True
) -> dict[str, list[Sample]]:
    """Samples by split: train, val and test, each in the order given.

    Splits that the samples bring along are used as they are. Otherwise whole groups are drawn by a hash of the seed
    and the group's name, so the split depends neither on the files' order nor on the machine, and adding images
    moves few others. A group is what `settings.group` finds in a name, else what the sample says; a sample without
    either is one of its own. With `settings.folds` the groups are dealt to that many parts of about equal size, the
    test is one of them, and the validation images are drawn from the others.

    Args:
        samples: With different names.
        settings: Fractions, folds, group and seed.
        need_train: Whether an empty train split is an error; it is not when a finished model is evaluated.

    Raises:
        SettingsError: fractions or group are wrong, or the group does not match every name.
        DataError: there are too few images, or the splits given are incomplete, part a group, or leave no choice to
            the folds.
    """
    problems = settings.problems()
    if problems:
        raise SettingsError("; ".join(problems) + ".")
    groups = _groups(samples, settings.group)
    given = [sample for sample in samples if sample.split is not None]
    if given and len(given) < len(samples):
        missing = [sample.name for sample in samples if sample.split is None]
        raise DataError(
            f"{len(missing)} of {len(samples)} images have no split ({first_few(missing)}); fill the split column in "
            "every row, or remove it."
        )
    if given and settings.folds is not None:
        raise DataError(
            f"folds={settings.folds} divides images anew, but these have splits already; leave --folds out, or remove "
            "the splits."
        )
    chosen = {sample.name: str(sample.split) for sample in given} or _draw(groups, settings)
    if given:
        _refuse_parted_groups(groups, chosen, settings.group)
    splits = {split: [sample for sample in samples if chosen[sample.name] == split] for split in SPLITS}
    if need_train and not splits["train"]:
        raise DataError(f"none of the {len(samples)} images has the split train; mark some to train on.")
    return splits


def _groups(samples: Sequence[Sample], pattern: str | None) -> dict[str, list[str]]:
    """Names of samples by group."""
    groups: dict[str, list[str]] = defaultdict(list)
    unmatched = []
    for sample in samples:
        match = re.search(pattern, sample.name) if pattern is not None else None
        key = (sample.group or sample.name) if pattern is None else match and match.group(1)
        if key is None:
            unmatched.append(sample.name)
        else:
            groups[key].append(sample.name)
    if unmatched:
        raise SettingsError(
            f"group={pattern!r} does not match {len(unmatched)} of {len(samples)} image names "
            f"({first_few(unmatched)}); correct it so that its first group is found in every name."
        )
    return groups


def _draw(groups: dict[str, list[str]], settings: DataSettings) -> dict[str, str]:
    """Split of each name."""
    fractions = {"val": settings.val_fraction, "test": settings.test_fraction}
    if settings.folds is not None:
        del fractions["test"]
    wanted = [split for split, fraction in fractions.items() if fraction > 0]
    total = sum(len(names) for names in groups.values())
    queue = sorted(
        groups,
        key=lambda group: hashlib.sha256(f"{settings.split_seed}:{group}".encode("utf-8", "surrogatepass")).digest(),
    )
    most = max(1, len(groups) - len(wanted) - 1)  # of a fold, so that the others can train and validate
    test = _fold(queue, groups, settings.folds, settings.fold, most) if settings.folds is not None else set()
    queue = [group for group in queue if group not in test]
    if len(queue) <= len(wanted):
        unit = _unit(groups, settings.group)
        raise DataError(
            f"{len(queue)} {unit} are too few for {', '.join(['train', *wanted])}: at least {len(wanted) + 1} are "
            f"needed. Add images, or set --val_fraction or --test_fraction to 0{_parting(unit)}."
        )
    chosen = {name: "test" for group in test for name in groups[group]}
    for position, split in enumerate(wanted, 1):
        target = int(fractions[split] * total + 0.5)
        size = 0
        while len(queue) > len(wanted) - position + 1:  # leave a group for each later split and for train
            after = size + len(groups[queue[0]])
            if size and abs(after - target) >= abs(size - target):
                break
            chosen.update(dict.fromkeys(groups[queue.pop(0)], split))
            size = after
    return {name: chosen.get(name, "train") for names in groups.values() for name in names}


def _fold(queue: Sequence[str], groups: dict[str, list[str]], folds: int, fold: int, most: int) -> set[str]:
    """The groups of one of the folds, at most so many; all folds together hold each group once.

    The largest group first, each to the fold that is smallest by then, so that the folds hold about as many images.
    """
    if len(groups) < folds:
        raise DataError(
            f"folds={folds} are more than there are {_unit(groups, None)}: {len(groups)}. Give fewer folds."
        )
    parts: list[list[str]] = [[] for _ in range(folds)]
    images = [0] * folds
    for group in sorted(queue, key=lambda group: -len(groups[group])):  # stable: equal sizes stay in hashed order
        open_parts = [number for number in range(folds) if len(parts[number]) < most] or range(folds)
        smallest = min(open_parts, key=images.__getitem__)
        parts[smallest].append(group)
        images[smallest] += len(groups[group])
    return set(parts[fold])


def _unit(groups: dict[str, list[str]], pattern: str | None) -> str:
    """What is divided, in words."""
    if pattern is not None:
        return f"groups of images (group={pattern!r})"
    return "images" if all(len(names) == 1 for names in groups.values()) else "groups of images"


def _parting(unit: str) -> str:
    """How groups that the source names can be parted, in words."""
    if unit != "groups of images":
        return ""
    return "; or part the groups, such as the slices of a volume, with --group '(.*)', which makes scores too good"


def _refuse_parted_groups(groups: dict[str, list[str]], chosen: dict[str, str], pattern: str | None) -> None:
    parted = [group for group, names in groups.items() if len({chosen[name] for name in names}) > 1]
    if parted:
        remedy = "leave out --group" if pattern else "remove the groups, or pass them over with --group '(.*)'"
        raise DataError(
            f"the splits given part {len(parted)} groups ({first_few(parted)}), so scores would come out too good. "
            f"Move each group into one split, or {remedy}."
        )
