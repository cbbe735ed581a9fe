"""What the values of a data set's masks mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convlora.errors import MaskError, SettingsError

ENCODINGS = ("ids", "binary")
FOREGROUND = 255
"""Mask value of the foreground in the binary encoding."""
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
    """ids: a pixel's value is its class id; binary: 0 is class 0 and 255 is class 1."""
    ignore_index: int = 255
    """Value of ignored pixels, in the masks and in what `decode` returns; above all class ids, at most 255."""

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
        if self.encoding == "binary" and self.num_classes > 2:
            problems.append(f"mask_format binary has 2 classes, not the {self.num_classes} of {list(self.classes)}")
        if problems:
            raise SettingsError("; ".join(problems) + ".")

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
        classes = {0: 0, FOREGROUND: 1} if self.encoding == "binary" else {i: i for i in range(self.num_classes)}
        return {self.ignore_index: self.ignore_index} | classes  # 255 is foreground in the binary encoding

    def allowed(self) -> str:
        """The values that a mask may hold, in words."""
        values = "0 (background) and 255 (foreground)" if self.encoding == "binary" else f"0..{self.num_classes - 1}"
        plain = self.encoding == "binary" and self.ignore_index == FOREGROUND
        return values if plain else f"{values} and {self.ignore_index} (ignored)"

    def decode(self, values: np.ndarray, path: Path) -> np.ndarray:
        """Class ids of a mask.

        Args:
            values: int32 (H, W), what the mask stores.
            path: The mask's file, for the message.

        Returns:
            uint8 (H, W), 0..num_classes - 1 or `ignore_index`.

        Raises:
            MaskError: the mask holds other values than `allowed`.
        """
        table = np.full(257, -1, dtype=np.int16)
        for value, class_id in self.mapping().items():
            table[value] = class_id
        ids = table[np.where((values < 0) | (values > 255), 256, values)]
        unknown = ids < 0
        if unknown.any():
            bad, count = np.unique(values[unknown]), int(np.count_nonzero(unknown))
            raise MaskError(
                f"{path}: values {value_list(bad)} are not among {self.allowed()}; "
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
