"""What a check found as a self-contained HTML page."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from convlora import __version__
from convlora.checking.pictures import Picture, Pictures, shown_for
from convlora.checking.settings import CheckSettings
from convlora.checking.summary import brightness, class_figures, layouts, other_notes, sizes
from convlora.data.findings.checking import CheckedData
from convlora.data.findings.finding import Finding, Survey
from convlora.data.labels.colours import as_hex
from convlora.files import write_text

_MOST_CLASSES = 24
_OF_A_FINDING = 4
_AUGMENTED = 3
_MOST_SIZES = 8


def write_page(
    path: Path, settings: CheckSettings, checked: CheckedData, survey: Survey, found: tuple[str, str]
) -> None:
    """Write the page whole or not at all; `found` is the format of the data and why it is taken for that."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader

    loader = ChoiceLoader([PackageLoader("convlora", "checking"), PackageLoader("convlora", "evaluation")])
    samples = [sample for part in checked.splits.values() for sample in part]
    pictures = Pictures(samples, checked.labels, settings)
    page = (
        Environment(loader=loader, autoescape=True)
        .get_template("page.html")
        .render(
            title=f"Data check: {Path(settings.images).name or settings.images}",
            version=__version__,
            date=datetime.date.today().isoformat(),
            found=found,
            findings=[(finding, _shown(finding, survey, pictures)) for finding in checked.findings],
            notes=other_notes(checked, found),
            classes=_class_rows(survey),
            splits={split: len(part) for split, part in checked.splits.items() if part},
            brightness=brightness(survey),
            sizes=[(f"{width} × {height}", count) for (height, width), count in sizes(survey)[:_MOST_SIZES]],
            more_sizes=max(0, len(sizes(survey)) - _MOST_SIZES),
            layouts=layouts(survey),
            channels=checked.statistics.lines() if checked.statistics is not None else [],
            image_size=settings.image_size,
            tile=settings.tile,
            ignored=checked.ignored_pixels,
            examples=_examples(survey, pictures),
            views=_views(survey, pictures, settings) if settings.augment else [],
            augmentation=_augmentation_text(settings),
        )
    )
    write_text(path, page.encode("utf-8", "backslashreplace").decode())  # file names need not be valid Unicode


def _class_rows(survey: Survey) -> list[dict[str, Any]]:
    figures = class_figures(survey)
    totals = {split: sum(own.pixels[split] for own in figures) for split in figures[0].pixels}
    return [
        {
            "name": own.name,
            "colour": _colour(survey, class_id) if class_id else "",
            "pixels": sum(own.pixels.values()),
            "shares": [100 * own.pixels[split] / total if total else 0.0 for split, total in totals.items()],
            "images": list(own.images.values()),
            "objects": own.objects if class_id else None,
            "area": own.median_area if class_id else None,
            "tiny": 100 * own.tiny / own.objects if own.objects and class_id else None,
        }
        for class_id, own in enumerate(figures)
    ]


def _colour(survey: Survey, class_id: int) -> str:
    return as_hex(survey.labels.palette[class_id])


def _shown(finding: Finding, survey: Survey, pictures: Pictures) -> list[Picture]:
    names = [name for name in finding.names if name in survey.split_of][:_OF_A_FINDING]
    return [pictures.whole(name, f"{name} ({survey.split_of[name]})") for name in names]


def _examples(survey: Survey, pictures: Pictures) -> list[dict[str, Any]]:
    """For each class that is drawn, the rarest first, samples with little and with much of it."""
    totals = {i: sum(survey.class_pixels(name).get(i, 0) for name in survey.split_of) for i in survey.labels.id2label}
    drawn = sorted((i for i, total in totals.items() if i and total), key=lambda i: totals[i])
    examples = []
    for class_id in drawn[:_MOST_CLASSES]:
        cells = []
        for name in shown_for(survey, class_id):
            counts = survey.class_pixels(name)
            share = 100 * counts[class_id] / max(1, sum(counts.values()))
            cells.append(pictures.around(name, class_id, f"{name} · {share:.2g} %"))
        examples.append({"name": survey.labels.id2label[class_id], "colour": _colour(survey, class_id), "cells": cells})
    return examples


def _views(survey: Survey, pictures: Pictures, settings: CheckSettings) -> list[list[Picture]]:
    """Training images of most foreground in the middle of all: such as show what is changed."""
    ranked = sorted(survey.members("train"), key=lambda name: (-survey.foreground_share(name), name))
    chosen = ranked[:: max(1, len(ranked) // _AUGMENTED)][:_AUGMENTED]
    return [pictures.views(name, settings.augmentation) for name in chosen]


def _augmentation_text(settings: CheckSettings) -> str:
    chosen = settings.augmentation
    if not chosen.enabled:
        return "off"
    changes = {name: value for name, value in vars(chosen.changes).items() if value}
    if settings.channels is not None:
        changes.pop("saturation", None)  # which raw channels do not have
    listed = ", ".join(
        name.replace("_", " ") + ("" if value is True else f" {value:g}") for name, value in changes.items()
    )
    return f"{chosen.preset or 'default'}: {listed or 'nothing changes'}"
