"""What the values of a data set's masks mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from convlora.data.sources import MaskSource
from convlora.errors import MaskError, SettingsError

ENCODINGS = ("ids", "binary", "table")
FOREGROUND = 255
"""Mask value of the foreground in the binary encoding."""
_DENSE = 2**16  # mask values below it are looked up in an array
REMEDY = "List all classes with --classes, say --mask_format ids or binary, set --ignore_index, or mend the masks"


@dataclass(frozen=True)
class LabelFormat:
    """Classes of a data set and how its masks store them.

    Raises:
        SettingsError: the parts contradict each other.
    """

    classes: tuple[str, ...]
    """Names from class id 0, the background, on; 2 to 255."""
    encoding: str = "ids"
    """ids: a pixel's value is its class id; binary: 0 is class 0 and 255 is class 1; table: as `table` says."""
    ignore_index: int = 255
    """Value of ignored pixels, in the masks and in what `decode` returns; above all class ids, at most 255."""
    table: tuple[tuple[int, int], ...] = ()
    """Of the encoding table: pairs of a value in a mask and its class id or `ignore_index`, each value once."""
    colours: tuple[tuple[int, int, int], ...] | None = None
    """RGB of each class, from its source; None draws them in the palette of `convlora.inference.drawing`."""

    def __post_init__(self) -> None:
        problems = []
        if len(set(self.classes)) < len(self.classes):
            problems.append(f"classes={list(self.classes)} holds a name twice")
        if not 2 <= self.num_classes <= 255:
            problems.append(f"{self.num_classes} classes must be 2 to 255, the background included")
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
        if self.encoding == "binary" and self.num_classes > 2:
            problems.append(f"mask_format binary has 2 classes, not the {self.num_classes} of {list(self.classes)}")
        if problems:
            raise SettingsError("; ".join(problems) + ".")

    def _table_problems(self) -> list[str]:
        if (self.encoding == "table") != bool(self.table):
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

    def mapping(self) -> dict[int, int]:
        """Class id, or `ignore_index`, of every value that a mask may hold."""
        if self.encoding == "table":
            return dict(self.table)
        classes = {0: 0, FOREGROUND: 1} if self.encoding == "binary" else {i: i for i in range(self.num_classes)}
        return {self.ignore_index: self.ignore_index} | classes  # 255 is foreground in the binary encoding

    def allowed(self) -> str:
        """The values that a mask may hold, in words."""
        if self.encoding == "table":
            return f"the {len(self.table)} values {value_list(value for value, _ in self.table)}"
        values = "0 (background) and 255 (foreground)" if self.encoding == "binary" else f"0..{self.num_classes - 1}"
        plain = self.encoding == "binary" and self.ignore_index == FOREGROUND
        return values if plain else f"{values} and {self.ignore_index} (ignored)"

    def decode(self, values: np.ndarray, source: MaskSource) -> np.ndarray:
        """Class ids of a mask.

        Args:
            values: int32 (H, W), what the mask stores.
            source: Of the mask, for the message.

        Returns:
            uint8 (H, W), 0..num_classes - 1 or `ignore_index`.

        Raises:
            MaskError: the mask holds other values than `allowed`.
        """
        mapping = self.mapping()
        largest = max(mapping)
        if largest < _DENSE and min(mapping) >= 0:
            table = np.full(largest + 2, -1, dtype=np.int16)
            for value, class_id in mapping.items():
                table[value] = class_id
            ids = table[np.where((values < 0) | (values > largest), largest + 1, values)]
        else:  # colours
            keys, meanings = (np.array(part) for part in zip(*sorted(mapping.items()), strict=True))
            nearest = np.searchsorted(keys, values).clip(max=len(keys) - 1)
            ids = np.where(keys[nearest] == values, meanings[nearest], -1)
        unknown = ids < 0
        if unknown.any():
            bad, count = np.unique(values[unknown]), int(np.count_nonzero(unknown))
            raise MaskError(
                f"{source}: values {value_list(bad)} are not among {self.allowed()}; "
                f"{share(count, values.size)} affected. {REMEDY}."
            )
        return ids.astype(np.uint8)


def value_list(values: Iterable[int]) -> str:
    """Ascending mask values for a message, at most eight of them."""
    ordered = sorted(int(value) for value in values)
    more = f", … {ordered[-1]} ({len(ordered)} different)" if len(ordered) > 8 else ""
    return ", ".join(str(value) for value in ordered[: 7 if more else 8]) + more


def share(count: int, total: int) -> str:
    """Number and share of pixels, for a message."""
    return f"{count} of {total} pixels ({100 * count / total:.2g} %)"
