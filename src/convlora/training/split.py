"""Which samples a run is made with, and how they are written down and found again."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convlora.data.labels.format import LabelFormat
from convlora.data.pixels.statistics import ChannelStatistics
from convlora.data.readers.finding import find_data
from convlora.data.samples import Sample, first_few
from convlora.data.settings import DataSettings
from convlora.data.sources import ImageSource, MaskSource
from convlora.errors import DataError
from convlora.settings import from_values


@dataclass(frozen=True)
class Split:
    """Which samples a run trains on, validates on and is tested on, and how their masks are read."""

    samples: dict[str, list[Sample]]
    labels: LabelFormat
    source: DataSettings | None = None
    """Where samples that are parts of files are found again; None if all are files."""
    statistics: ChannelStatistics | None = None
    """Of raw channels over the training images; None for RGB."""
    class_weights: tuple[float, ...] | None = None
    """Of the classes in the loss, background first; None weighs all alike."""
    repeats: tuple[float, ...] | None = None
    """How often each training sample is shown in an epoch, on average; None is once."""

    def as_json(self) -> dict[str, Any]:
        """Plain values; the places of files are given absolutely."""
        return {
            "labels": dataclasses.asdict(self.labels),
            "samples": {
                split: [{"name": s.name, "image": _place(s.image), "mask": _place(s.mask)} for s in part]
                for split, part in self.samples.items()
            },
            "source": dataclasses.asdict(self.source) if self.source is not None else None,
            "statistics": self.statistics.as_json() if self.statistics is not None else None,
            "class_weights": self.class_weights,
            "repeats": self.repeats,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Split:
        """What `as_json` made plain.

        Raises:
            DataError: Samples that are parts of files are not found any more.
            ValueError, TypeError, KeyError, SettingsError: These are other values.
        """
        labels, parts = LabelFormat.from_json(values["labels"]), values["samples"]
        places = [place for part in parts.values() for item in part for place in (item["image"], item["mask"])]
        given = values.get("source")
        source = from_values(DataSettings, given, source="source") if given is not None else None
        measured = values.get("statistics")
        statistics = ChannelStatistics.from_json(measured) if measured is not None else None
        balance = (
            _numbers(values, "class_weights", labels.num_classes, 0),
            _numbers(values, "repeats", len(parts["train"]), 1),
        )
        if source is None or not any(isinstance(place, dict) for place in places):
            samples = {split: [_from_files(item, split) for item in part] for split, part in parts.items()}
            return cls(samples, labels, source, statistics, *balance)
        found = {sample.name: sample for sample in find_data(source).samples}
        gone = [item["name"] for part in parts.values() for item in part if item["name"] not in found]
        if gone:
            raise DataError(f"{source.images}: {len(gone)} images are not there any more: {first_few(gone)}.")
        return cls(
            {
                split: [dataclasses.replace(found[item["name"]], split=split) for item in part]
                for split, part in parts.items()
            },
            labels,
            source,
            statistics,
            *balance,
        )


def _numbers(values: dict[str, Any], name: str, count: int, least: float) -> tuple[float, ...] | None:
    """So many numbers, none below the least; None if there are none, as in a split of an older run."""
    given = values.get(name)
    if given is None:
        return None
    numbers = tuple(float(number) for number in given)
    if len(numbers) != count or not all(least <= number < math.inf for number in numbers):
        raise ValueError(f"{name} are not {count} numbers")
    return numbers


def _place(source: ImageSource | MaskSource | None) -> str | dict[str, str] | None:
    """An absolute path; of what is not a file of its own, a description."""
    if source is None:
        return None
    return str(source.absolute()) if isinstance(source, Path) else {"part": str(source)}


def _from_files(item: dict[str, Any], split: str) -> Sample:
    return Sample(item["name"], Path(item["image"]), Path(item["mask"]) if item["mask"] else None, split)
