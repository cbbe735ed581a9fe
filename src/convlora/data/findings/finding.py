"""One thing that is, or looks, wrong with a data set, and what the functions that find such things look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from convlora.data.findings.measuring import Measured
from convlora.data.labels.format import LabelFormat
from convlora.data.settings import DataSettings

HARMS = ("harmful", "notable", "hint")
"""harmful: scores come out wrong, or a part of the data teaches the wrong thing; notable: worse results than need be;
hint: may be meant, look at it."""


@dataclass(frozen=True)
class Finding:
    """One sentence on what was found, and one on what to do."""

    kind: str
    """A short name that stays the same, for programs."""
    harm: str
    """One of `HARMS`."""
    text: str
    """What was found; without a full stop at the end."""
    remedy: str
    """What to do about it: a command, a flag or a step."""
    names: tuple[str, ...] = ()
    """Samples that it is about, the clearest first; empty if it is about all."""

    def __str__(self) -> str:
        return f"{self.text}. {self.remedy}"


@dataclass(frozen=True)
class Survey:
    """Figures of all pairs of a data set."""

    measured: Mapping[str, Measured]
    """By name of the sample."""
    split_of: Mapping[str, str]
    """Split of each sample that is used, by name."""
    labels: LabelFormat
    settings: DataSettings
    splits_given: bool = False
    """Whether the splits come with the data, and are not drawn."""
    image_size: int | None = None
    """Side of the model's input in pixels; None if objects should not be held against it."""

    @property
    def tile(self) -> int | None:
        """Side of the crops that the model sees instead of whole images, if it does."""
        return getattr(self.settings, "tile", None)

    @property
    def brightness_changes(self) -> float:
        """By which part of it augmentation changes the brightness; 0 if nothing says that there is any."""
        chosen = getattr(self.settings, "augmentation", None)
        return float(chosen.changes.brightness) if chosen is not None and chosen.enabled else 0.0

    def classes_of(self, value: int) -> tuple[int, ...]:
        """Class ids of a mask value; none if it is ignored, several only where classes overlap."""
        return tuple(c for c in self.labels.meaning(value) or () if c != self.labels.ignore_index)

    def class_pixels(self, name: str) -> dict[int, int]:
        """Pixels of one mask by class id, ignored ones left out."""
        counts: Counter[int] = Counter()
        for value, count in self.measured[name].values.items():
            counts.update(dict.fromkeys(self.classes_of(value), count))
        return counts

    def foreground_share(self, name: str) -> float:
        """Share of the pixels that count in one mask that are not background; 0 if none counts."""
        meanings = [(self.classes_of(value), count) for value, count in self.measured[name].values.items()]
        total = sum(count for classes, count in meanings if classes)
        return sum(count for classes, count in meanings if classes and classes != (0,)) / total if total else 0.0

    def frame_share(self, name: str) -> float:
        """Share of the outermost pixels of one mask that are of some class but the background."""
        frame = self.measured[name].frame
        return sum(share for value, share in frame.items() if self.classes_of(value) not in ((), (0,)))

    def members(self, split: str) -> list[str]:
        """Names of a split's samples."""
        return [name for name, own in self.split_of.items() if own == split]
