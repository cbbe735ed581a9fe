"""A checked data set in figures: what the page shows in tables, and what JSON holds."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from convlora.data.findings.checking import CheckedData
from convlora.data.findings.finding import Survey
from convlora.data.findings.objects import PATCH
from convlora.data.readers.finding import format_note
from convlora.data.samples import SPLITS
from convlora.data.settings import DataSettings


@dataclass(frozen=True)
class ClassFigures:
    """One class."""

    name: str
    pixels: dict[str, int]
    """By split."""
    images: dict[str, int]
    """Masks that hold it, by split."""
    objects: int
    """Connected components."""
    median_area: int | None
    """Of its objects, in pixels; None if there is none."""
    tiny: int
    """Objects smaller than one patch of the model's input."""


def survey_of(checked: CheckedData, settings: DataSettings, image_size: int) -> Survey:
    """The figures of a thorough check."""
    split_of = {sample.name: split for split, samples in checked.splits.items() for sample in samples}
    return Survey(checked.measured, split_of, checked.labels, settings, image_size=image_size)


def class_figures(survey: Survey) -> list[ClassFigures]:
    """One entry a class, the background first."""
    splits = [split for split in SPLITS if survey.members(split)]
    counts = {split: [survey.class_pixels(name) for name in survey.members(split)] for split in splits}
    areas = _areas(survey)
    figures = []
    for class_id, name in survey.labels.id2label.items():
        own, zooms = areas.get(class_id, (np.zeros(0, dtype=int), np.zeros(0)))
        figures.append(
            ClassFigures(
                name=name,
                pixels={split: sum(count.get(class_id, 0) for count in counts[split]) for split in splits},
                images={split: sum(class_id in count for count in counts[split]) for split in splits},
                objects=len(own),
                median_area=int(np.median(own)) if len(own) else None,
                tiny=int((own * zooms**2 < PATCH**2).sum()),
            )
        )
    return figures


def _areas(survey: Survey) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Areas of the objects of each class, and the zoom to the model's input of the image that each is in."""
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for name in survey.split_of:
        item = survey.measured[name]
        zoom = (survey.image_size or 0) / (survey.tile or max(item.size))
        for value, (areas, counts) in item.details.objects.items() if item.details else ():
            every = np.repeat(areas, counts)
            for class_id in survey.classes_of(value):
                found.setdefault(class_id, []).append((every, np.full(len(every), zoom)))
    return {
        class_id: (np.concatenate([areas for areas, _ in parts]), np.concatenate([zooms for _, zooms in parts]))
        for class_id, parts in found.items()
    }


def brightness(survey: Survey) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation over the images of each split of their mean grey, 0..255."""
    values = {split: [survey.measured[n].brightness for n in survey.members(split)] for split in SPLITS}
    return {split: (float(np.mean(own)), float(np.std(own))) for split, own in values.items() if own}


def sizes(survey: Survey) -> list[tuple[tuple[int, int], int]]:
    """(H, W) of the images and how many have it, the most common first."""
    return Counter(survey.measured[name].size for name in survey.split_of).most_common()


def layouts(survey: Survey) -> list[tuple[str, int]]:
    """How files store their pixels, and how many do, the most common first."""
    details = [survey.measured[name].details for name in survey.split_of]
    return Counter(item.layout for item in details if item is not None).most_common()


def other_notes(checked: CheckedData, found: tuple[str, str]) -> list[str]:
    """The notes that repeat neither a finding nor the format, which are told by themselves."""
    told = {format_note(*found), *map(str, checked.findings)}
    return [note for note in checked.notes if note not in told]


def as_json(checked: CheckedData, survey: Survey, found: tuple[str, str]) -> dict[str, Any]:
    """All figures and findings as plain values; `found` is the format of the data and why it is taken for that."""
    return {
        "usable": True,
        "format": {"name": found[0], "reason": found[1]},
        "splits": {split: len(samples) for split, samples in checked.splits.items()},
        "encoding": checked.labels.encoding,
        "ignored_pixels": checked.ignored_pixels,
        "classes": [dataclasses.asdict(figures) for figures in class_figures(survey)],
        "sizes": [{"height": h, "width": w, "images": count} for (h, w), count in sizes(survey)],
        "layouts": dict(layouts(survey)),
        "brightness": {split: {"mean": m, "deviation": d} for split, (m, d) in brightness(survey).items()},
        "channels": checked.statistics.as_json() if checked.statistics is not None else None,
        "notes": other_notes(checked, found),
        "findings": [dataclasses.asdict(finding) for finding in checked.findings],
    }
