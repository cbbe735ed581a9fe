"""What the readers of annotation files have in common: names, splits, classes and what was left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from convlora.data.labels.bits import IGNORED
from convlora.data.labels.colours import Colour, choose_colours
from convlora.data.labels.format import LabelFormat
from convlora.data.readers.polygons import IGNORE, MOST_CLASSES
from convlora.data.samples import Sample, first_few, stem
from convlora.data.settings import BACKGROUND, DataSettings
from convlora.errors import MaskError, SettingsError

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""The splits by the names that folders and files have for them."""
_COPY = re.compile(r"(.+)\.rf\.\w+")  # what Roboflow calls an image, and each altered copy of it
_SPLIT = re.compile(rf"(?:^|[^a-z])({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})(?![a-z])")


def sample_names(files: Sequence[PurePosixPath]) -> list[str]:
    """Different names for different files: stems or, if two are equal, paths without suffix, or with it."""
    stems = [stem(Path(file.name)) for file in files]
    for names in (stems, [file.with_suffix("").as_posix() for file in files]):
        if len(set(names)) == len(names):
            return names
    return [file.as_posix() for file in files]


def split_of(*texts: str) -> str | None:
    """The split that the first text with such a word names: train2017, valid, my_test.json …"""
    for text in texts:
        words = _SPLIT.findall(text.lower())
        if words:
            return SPLIT_WORDS[words[-1]]
    return None


def settle_splits(samples: Sequence[Sample]) -> tuple[list[Sample], list[str]]:
    """Samples sorted by name, and notes; their splits count if all have one and there are at least two.

    Where they do not count, the copies that Roboflow made of one image are a group.
    """
    ordered = sorted(samples, key=lambda sample: sample.name)
    counts = Counter(sample.split for sample in ordered if sample.split is not None)
    if len(counts) > 1 and counts.total() == len(ordered):
        return ordered, ["split as the files say: " + ", ".join(f"{n} {split}" for split, n in sorted(counts.items()))]
    notes = []
    if len(counts) == 1 and counts.total() == len(ordered):
        notes = [f"all images are of the split {next(iter(counts))}, so they are split anew"]
    elif counts:
        notes = [f"{len(ordered) - counts.total()} of {len(ordered)} images have no split, so all are split anew"]
    found = [(sample, _COPY.fullmatch(sample.name)) for sample in ordered]
    groups = Counter(match[1] for sample, match in found if match and sample.group is None)
    if copies := sum(count for count in groups.values() if count > 1):
        notes.append(f"{copies} images are copies by Roboflow (.rf.); those of one image stay in one split")
    return [replace(s, split=None, group=s.group or (match[1] if match else None)) for s, match in found], notes


def label_format(names: Sequence[str], settings: DataSettings, colours: Sequence[Colour | None] = ()) -> LabelFormat:
    """Classes with the background before them; masks hold their ids and `IGNORE` or, if they may overlap, bit fields.

    Args:
        names: Of the classes from id 1 on.
        settings: Of these, `task`; what was said about mask values must not contradict.
        colours: What the source says of the same classes; nothing of any is like none at all.

    Raises:
        MaskError: There are none, or too many.
        SettingsError: The settings say otherwise.
    """
    where = settings.masks or settings.images
    if not names:
        raise MaskError(f"{where} names no classes. Export it again, with its classes.")
    if len(names) > MOST_CLASSES:
        raise MaskError(f"{where} has {len(names)} classes; a mask holds up to {MOST_CLASSES}. Merge or remove some.")
    if settings.ignore_index != IGNORE or settings.mask_format not in ("auto", "ids"):
        raise SettingsError(
            f"{where} holds annotations, which become masks of class ids with {IGNORE} for what is ignored. Leave "
            "--ignore_index and --mask_format out."
        )
    classes = (BACKGROUND, *names)
    rgb = choose_colours(classes, [(0, 0, 0), *colours], {}) if any(colours) else None
    if settings.task == "multilabel":
        return LabelFormat(classes, "bits", IGNORED, colours=rgb, multilabel=True)
    return LabelFormat(classes, "ids", IGNORE, colours=rgb)


def unannotated_note(names: Sequence[str], total: int, what: str = "annotations") -> list[str]:
    """That images without annotations count as background only; none if there are no such images.

    Raises:
        MaskError: No image has any.
    """
    if len(names) == total:
        raise MaskError(f"none of the {total} images has {what}. Export them again, with the outlines of the objects.")
    return [f"{len(names)} of {total} images without {what} are background only: {first_few(names)}"] if names else []


def unlisted_note(files: Sequence[PurePosixPath], source: str) -> list[str]:
    """That image files which the source does not name are left out; none if there are no such files."""
    return [f"left out {len(files)} image files that {source} does not name: {first_few(files)}"] if files else []
