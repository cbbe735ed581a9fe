"""What a user should know about data that can be used as they are."""

from __future__ import annotations

from collections import Counter

from convlora.data.labels.format import LabelFormat
from convlora.data.samples import counted, first_few


def mask_notes(names: list[str], counts: list[Counter[int]], labels: LabelFormat) -> list[str]:
    """Masks in which there is nothing to learn, or only background; `counts` are pixels by class id, by mask."""
    ignored = [name for name, count in zip(names, counts, strict=True) if set(count) == {labels.ignore_index}]
    empty = [
        name for name, count in zip(names, counts, strict=True) if 0 in count and not _classes(count, labels) - {0}
    ]
    notes = []
    if ignored:
        notes.append(f"{len(ignored)} of {len(names)} masks are ignored throughout: {first_few(ignored)}")
    if empty:
        notes.append(f"{len(empty)} of {len(names)} masks hold background only: {first_few(empty)}")
    return notes


def class_notes(splits: list[str], counts: list[Counter[int]], labels: LabelFormat) -> list[str]:
    """Classes that no mask holds, or none of the train split; `splits` and `counts` are by mask."""
    everywhere = set[int]().union(*(_classes(count, labels) for count in counts))
    in_train = set[int]().union(
        *(_classes(count, labels) for split, count in zip(splits, counts, strict=True) if split == "train")
    )
    never = [name for i, name in labels.id2label.items() if i not in everywhere]
    untrained = [name for i, name in labels.id2label.items() if i in everywhere - in_train]
    notes = []
    if never:
        notes.append(f"{len(never)} of {labels.num_classes} classes are in no mask: {first_few(never)}")
    if untrained and "train" in splits:
        are = counted(len(untrained), "class is", "classes are")
        notes.append(f"{are} in no mask of the train split: {first_few(untrained)}")
    return notes


def _classes(count: Counter[int], labels: LabelFormat) -> set[int]:
    return set(count) - {labels.ignore_index}
