"""Stacks, rasters and volumes that any reader found become samples of one picture each."""

from __future__ import annotations

import dataclasses

from convlora.data.labels.format import LabelFormat
from convlora.data.readers.found import FoundData
from convlora.data.samples import Sample
from convlora.data.scientific.choosing import choose_intensity
from convlora.data.scientific.dicom_seg import SegmentedSeries
from convlora.data.scientific.expanding import Reading, expand
from convlora.data.scientific.geotiff import WhereData
from convlora.data.scientific.parts import StackMask
from convlora.data.scientific.vectors import VectorMask
from convlora.data.settings import DataSettings
from convlora.errors import MaskError


def in_pictures(found: FoundData, settings: DataSettings) -> FoundData:
    """The same data, a picture a sample; with the classes that the masks name, and notes on how values are shown.

    Raises:
        DataError: See `convlora.data.scientific.expanding.expand`.
        SettingsError: A library is not installed.
    """
    samples, notes = expand(found.samples, Reading.of(settings))
    intensity = settings.intensity
    if settings.channels is None:
        samples, intensity, more = choose_intensity(samples, settings.intensity, settings.limits)
        notes += more
    labels = found.labels
    if labels is None and (classes := _classes(samples)) is not None:
        labels = LabelFormat(classes, ignore_index=255)
    return dataclasses.replace(found, samples=samples, labels=labels, notes=[*found.notes, *notes], intensity=intensity)


def _classes(samples: list[Sample]) -> tuple[str, ...] | None:
    """The classes that all masks name; None if they hold numbers alone."""
    named = {_named(sample) for sample in samples}
    if named <= {None}:
        return None
    if len(named) > 1:
        raise MaskError(
            f"{samples[0].mask}: some masks name their classes and others hold numbers; give masks of one kind."
        )
    (classes,) = named
    if classes is not None and not 2 <= len(classes) <= 255:
        what = "no outline" if len(classes) < 2 else f"{len(classes) - 1} classes"
        raise MaskError(f"{samples[0].mask}: the masks hold {what}, and 1 to 254 classes can be trained.")
    return classes


def _named(sample: Sample) -> tuple[str, ...] | None:
    mask = sample.mask.mask if isinstance(sample.mask, WhereData) else sample.mask
    if isinstance(mask, VectorMask):
        return mask.classes
    return mask.stack.classes if isinstance(mask, StackMask) and isinstance(mask.stack, SegmentedSeries) else None
