"""Settle what the masks of a data set mean, from all that is known: their source, their values, and the user."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from convlora.data.labels.classes import arrange_classes, like_model, overlapping, values_format
from convlora.data.labels.detection import Histograms, detect_labels, refuse_unknown_values
from convlora.data.labels.format import NO_DATA, LabelFormat, value_list
from convlora.data.readers.found import FoundData
from convlora.data.settings import DataSettings
from convlora.errors import MaskError


def settle_labels(
    data: FoundData, histograms: Histograms, settings: DataSettings, model: LabelFormat | None = None
) -> tuple[LabelFormat, list[str]]:
    """What the masks mean, and notes on what was concluded.

    Args:
        data: What the reader found.
        histograms: Pixels by value, by mask.
        settings: Of the data.
        model: Classes of a finished model, which count instead of the settings' `classes` and `ignore_index`; the
            masks may store them as those that it was trained with, or as class ids.

    Raises:
        MaskError: The values fit no format, or other classes than the model's.
        SettingsError: The settings contradict each other or the data.
    """
    histograms, no_data = _without_no_data(histograms)
    labels, notes = _settle(data, histograms, settings, model)
    return labels, [*notes, *no_data]


def _without_no_data(histograms: Histograms) -> tuple[Histograms, list[str]]:
    """The pixels that have a meaning, and a note on the others."""
    missing = [counts[NO_DATA] for counts in histograms.values() if NO_DATA in counts]
    if not missing:
        return histograms, []
    kept = {mask: {v: n for v, n in counts.items() if v != NO_DATA} for mask, counts in histograms.items()}
    return kept, [f"{sum(missing)} pixels of {len(missing)} images hold no data, and are ignored"]


def _settle(
    data: FoundData, histograms: Histograms, settings: DataSettings, model: LabelFormat | None
) -> tuple[LabelFormat, list[str]]:
    if data.labels is not None:
        refuse_unknown_values(histograms, data.labels)
    if model is not None:
        return _as_model(data, histograms, settings, model)
    if data.labels is not None:
        return arrange_classes(data.labels, settings, named=data.named)
    values = set[int]().union(*histograms.values())
    listed = values_format(values, settings)
    if listed is not None:
        note = f"masks hold {value_list(values)}: read as {_meanings(listed, values)} (--class_map)"
        arranged, notes = arrange_classes(listed, dataclasses.replace(settings, class_map=None), named=True)
        return arranged, [note, *notes]
    detected, notes = detect_labels(
        histograms,
        classes=settings.classes,
        mask_format=settings.mask_format,
        ignore_index=settings.ignore_index,
    )
    arranged, more = arrange_classes(detected, settings, named=False)
    return arranged, [*notes, *more]


def _meanings(labels: LabelFormat, values: Collection[int]) -> str:
    """Which of the values is which class, in words."""
    listed = {class_id: [value for value in values if labels.meaning(value) == (class_id,)] for class_id in range(256)}
    names = labels.id2label | {labels.ignore_index: "ignored"}
    return ", ".join(f"{names[class_id]} ({value_list(own)})" for class_id, own in listed.items() if own)


def _as_model(
    data: FoundData, histograms: Histograms, settings: DataSettings, model: LabelFormat
) -> tuple[LabelFormat, list[str]]:
    if data.labels is not None:
        if data.labels.classes == model.classes and data.labels.multilabel == model.multilabel:
            return data.labels, []
        known = set(data.labels.classes[1:]) <= set(model.classes)
        mapped = dataclasses.replace(
            settings,
            class_map=None if known else settings.class_map,
            classes=None,
            class_colours=None,
            task="multilabel" if model.multilabel else "exclusive",
        )
        arranged, notes = arrange_classes(data.labels, mapped, named=data.named)
        if arranged.multilabel != model.multilabel:
            raise MaskError(f"{settings.images} has classes that overlap, but the model's exclude each other.")
        return like_model(arranged, model, settings.images), notes
    values = set[int]().union(*histograms.values())
    if model.encoding == "table" and all(model.meaning(value) is not None for value in values):
        return model, [f"masks hold {value_list(values)}: read as those of the training were"]
    detected, notes = detect_labels(
        histograms,
        classes=model.classes,
        mask_format=settings.mask_format,
        ignore_index=settings.ignore_index if model.multilabel else model.ignore_index,
    )
    return (dataclasses.replace(overlapping(detected), colours=model.colours) if model.multilabel else detected), notes
