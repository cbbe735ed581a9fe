"""What the values of a data set's masks mean."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from convlora.data.labels.bits import IGNORED, MOST_CLASSES, bit, members
from convlora.data.labels.colours import Colour, class_colour
from convlora.data.sources import MaskSource
from convlora.errors import MaskError, SettingsError

ENCODINGS = ("ids", "binary", "table", "bits")
FOREGROUND = 255
"""Mask value of the foreground in the binary encoding."""
NO_DATA = -(2**31)
"""Mask value of pixels where the image holds no data: ignored in every encoding."""
_DENSE = 2**16  # mask values below it are looked up in an array
_UNKNOWN = -(2**31)  # no class id, no bit field, and not ignored
REMEDY = (
    "List all classes with --classes, map values with --class_map, say --mask_format ids or binary, set "
    "--ignore_index, or mend the masks"
)


@dataclass(frozen=True)
class LabelFormat:
    """Classes of a data set and how its masks store them.

    Raises:
        SettingsError: the parts contradict each other.
    """

    classes: tuple[str, ...]
    """Names from class id 0, the background, on; 2 to 255."""
    encoding: str = "ids"
    """ids: a pixel's value is its class id; binary: 0 is class 0 and 255 is class 1; table: as `table` says; bits: the
    bit fields of `convlora.data.labels.bits`, if the classes may overlap."""
    ignore_index: int = 255
    """Value of ignored pixels, in the masks and in what `decode` returns; above all class ids, at most 255; with
    `multilabel` -1."""
    table: tuple[tuple[int, int], ...] = ()
    """Of the encoding table: pairs of a value in a mask and its class id or `ignore_index`, each value once. Of the
    encoding bits: pairs of the class that a bit stands for and a class id or `ignore_index`; none if they are equal."""
    colours: tuple[Colour, ...] | None = None
    """RGB of each class, from its source; None draws them in the palette of `convlora.data.labels.colours`."""
    multilabel: bool = False
    """Whether a pixel may be of several classes; then `decode` gives bit fields."""

    def __post_init__(self) -> None:
        problems = []
        if len(set(self.classes)) < len(self.classes):
            problems.append(f"classes={list(self.classes)} holds a name twice")
        if not 2 <= self.num_classes <= 255:
            problems.append(f"{self.num_classes} classes must be 2 to 255, the background included")
        elif self.multilabel:
            problems += self._multilabel_problems()
        elif not self.num_classes <= self.ignore_index <= 255:
            problems.append(
                f"ignore_index={self.ignore_index} must be between {self.num_classes} and 255, "
                f"because 0..{self.num_classes - 1} are class ids"
            )
        if self.encoding not in ENCODINGS:
            problems.append(f"encoding={self.encoding!r} must be one of {', '.join(ENCODINGS)}")
        if self.colours is not None and len(self.colours) != self.num_classes:
            problems.append(f"{len(self.colours)} colours for {self.num_classes} classes")
        problems += self._table_problems()
        if self.encoding == "bits" and not self.multilabel:
            problems.append("encoding='bits' is for multilabel masks")
        if self.encoding == "binary" and self.num_classes > 2:
            problems.append(f"mask_format binary has 2 classes, not the {self.num_classes} of {list(self.classes)}")
        if problems:
            raise SettingsError("; ".join(problems) + ".")

    def _multilabel_problems(self) -> list[str]:
        problems = []
        if not 3 <= self.num_classes <= MOST_CLASSES + 1:
            problems.append(
                f"task=multilabel takes 2 to {MOST_CLASSES} classes beside the background, not {self.num_classes - 1} "
                "(with one, nothing can overlap: use task=exclusive)"
            )
        if self.ignore_index != IGNORED or self.encoding not in ("table", "bits"):
            problems.append(
                f"multilabel labels have encoding table or bits and ignore_index={IGNORED}, not {self.encoding} and "
                f"{self.ignore_index}"
            )
        return problems

    def _table_problems(self) -> list[str]:
        if (self.encoding == "table") != bool(self.table) and self.encoding != "bits":
            return [f"encoding={self.encoding!r} with {len(self.table)} values in the table"]
        if len({value for value, _ in self.table}) < len(self.table):
            return ["the table of mask values holds a value twice"]
        unknown = {meaning for _, meaning in self.table} - {*range(self.num_classes), self.ignore_index}
        return (
            [f"the table of mask values names class ids that are not there: {value_list(unknown)}"] if unknown else []
        )

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LabelFormat:
        """What `dataclasses.asdict` made of one, after a way through JSON.

        Raises:
            TypeError, ValueError, KeyError: It is none.
            SettingsError: Its parts contradict each other.
        """
        colours = values.get("colours")
        return cls(
            **{
                **values,
                "classes": tuple(values["classes"]),
                "table": tuple((int(value), int(meaning)) for value, meaning in values.get("table", ())),
                "colours": colours and tuple((int(red), int(green), int(blue)) for red, green, blue in colours),
            }
        )

    @property
    def num_classes(self) -> int:
        """Number of classes, the background included."""
        return len(self.classes)

    @property
    def id2label(self) -> dict[int, str]:
        """Class names by id, as transformers' configurations hold them."""
        return dict(enumerate(self.classes))

    @property
    def palette(self) -> dict[int, Colour]:
        """RGB of each class by id, as pictures show it: as given, else those of `convlora.data.labels.colours`."""
        return dict(enumerate(self.colours or [class_colour(i) for i in range(self.num_classes)]))

    def mapping(self) -> dict[int, int]:
        """Class id, or `ignore_index`, of every value that a mask may hold; of bit fields, of every class they hold."""
        return dict(self._mapping)

    @functools.cached_property
    def _mapping(self) -> dict[int, int]:
        if self.table:
            return dict(self.table)
        if self.encoding == "bits":
            return {i: i for i in range(1, self.num_classes)}
        classes = {0: 0, FOREGROUND: 1} if self.encoding == "binary" else {i: i for i in range(self.num_classes)}
        return {self.ignore_index: self.ignore_index} | classes  # 255 is foreground in the binary encoding

    def meaning(self, value: int) -> tuple[int, ...] | None:
        """Class ids, or `ignore_index`, of a value in a mask; several only of a bit field; None if it has none."""
        mapping = self._mapping
        if value == NO_DATA:
            return (self.ignore_index,)
        if self.encoding != "bits":
            return (mapping[value],) if value in mapping else None
        if value in (0, IGNORED):
            return (value,)
        if value < 0 or not mapping.keys() >= set(members(value)):
            return None
        meanings = {mapping[class_id] for class_id in members(value)}
        return (IGNORED,) if IGNORED in meanings else tuple(sorted(meanings - {0})) or (0,)

    def allowed(self) -> str:
        """The values that a mask may hold, in words."""
        if self.encoding == "bits":
            return f"the bit fields of {len(self.mapping())} classes"
        if self.encoding == "table":
            return f"the {len(self.table)} values {value_list(value for value, _ in self.table)}"
        values = "0 (background) and 255 (foreground)" if self.encoding == "binary" else f"0..{self.num_classes - 1}"
        plain = self.encoding == "binary" and self.ignore_index == FOREGROUND
        return values if plain else f"{values} and {self.ignore_index} (ignored)"

    def decode(self, values: np.ndarray, source: MaskSource) -> np.ndarray:
        """Class ids of a mask or, of multilabel ones, bit fields.

        Args:
            values: int32 (H, W), what the mask stores.
            source: Of the mask, for the message.

        Returns:
            uint8 (H, W), 0..num_classes - 1 or `ignore_index`. Of multilabel masks int32 (H, W): bit c - 1 says whether
            the pixel is of class c (`convlora.data.labels.bits`), and -1 that it is ignored.

        Raises:
            MaskError: the mask holds other values than `allowed`.
        """
        if self.encoding == "bits":
            meanings = {value: self.meaning(value) for value in np.unique(values).tolist()}
            mapping = {value: self._decoded(*classes) for value, classes in meanings.items() if classes is not None}
        else:
            mapping = {value: self._decoded(class_id) for value, class_id in self.mapping().items()}
        ids = _look_up(mapping, values)
        unknown = ids == _UNKNOWN
        if unknown.any():
            ids[values == NO_DATA] = self.ignore_index
            unknown = ids == _UNKNOWN
        if unknown.any():
            bad, count = np.unique(values[unknown]), int(np.count_nonzero(unknown))
            raise MaskError(
                f"{source}: values {value_list(bad)} are not among {self.allowed()}; "
                f"{share(count, values.size)} affected. {REMEDY}."
            )
        return ids if self.multilabel else ids.astype(np.uint8)

    def _decoded(self, *class_ids: int) -> int:
        """What `decode` gives for a pixel of these classes, or of one if they exclude each other."""
        if not self.multilabel or class_ids == (IGNORED,):
            return class_ids[0]
        return sum(bit(class_id) for class_id in class_ids)


def _look_up(mapping: dict[int, int], values: np.ndarray) -> np.ndarray:
    """What each value stands for, int32 (H, W); `_UNKNOWN` for values that are not mapped."""
    if not mapping:
        return np.full(values.shape, _UNKNOWN, dtype=np.int32)
    largest = max(mapping)
    if largest < _DENSE and min(mapping) >= 0:
        table = np.full(largest + 2, _UNKNOWN, dtype=np.int32)
        for value, meaning in mapping.items():
            table[value] = meaning
        return table[np.where((values < 0) | (values > largest), largest + 1, values)]
    keys, meanings = (np.array(part, dtype=np.int64) for part in zip(*sorted(mapping.items()), strict=True))  # colours
    nearest = np.searchsorted(keys, values).clip(max=len(keys) - 1)
    return np.where(keys[nearest] == values, meanings[nearest], _UNKNOWN).astype(np.int32)


def value_list(values: Iterable[int]) -> str:
    """Ascending mask values for a message, at most eight of them."""
    ordered = sorted(int(value) for value in values)
    more = f", … {ordered[-1]} ({len(ordered)} different)" if len(ordered) > 8 else ""
    return ", ".join(str(value) for value in ordered[: 7 if more else 8]) + more


def share(count: int, total: int) -> str:
    """Number and share of pixels, for a message."""
    return f"{count} of {total} pixels ({100 * count / total:.2g} %)"
