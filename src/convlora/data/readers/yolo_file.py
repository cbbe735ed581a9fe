"""The files of a YOLO data set: data.yaml, and a text file of outlines for each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from convlora.data.readers.json_files import is_name, shown
from convlora.data.readers.polygons import BOX_ONLY, Region, Shape, polygon, rectangle, usable
from convlora.data.samples import SPLITS
from convlora.errors import DataError, MaskError

_MOST_BYTES = 2**18  # of data.yaml: 254 names take less, and YAML is slow to read
_FARTHEST = 2.0  # of fractions: outlines may lie beyond the image a little, but pixels are no fractions


@dataclass(frozen=True)
class YoloTable:
    """What data.yaml, or a list of names, says."""

    path: Path
    names: list[str]
    """From class number 0 on."""
    splits: list[tuple[str, str]]
    """Splits and folders or lists of their images, as written but without steps to the folder above: exports write
    ../train/images although the folder is beside the file."""


def read_table(path: Path) -> YoloTable:
    """Read a data.yaml.

    Raises:
        DataError: It is not YAML, or has no names with the numbers from 0 on, each once.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path}: larger than a list of classes can be.")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}).") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: not a YAML file ({reason}).") from error
    if not isinstance(values, dict) or "names" not in values:
        raise DataError(f"{path}: has no names. List the classes: 'names: [cat, dog]'.")
    return YoloTable(path, _names(path, values["names"]), _split_entries(values))


def read_names(path: Path) -> YoloTable:
    """Read a classes.txt: the name of a class in each line, in the order of their numbers.

    Raises:
        DataError: It is no such list.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of names ({error}).") from error
    return YoloTable(path, _names(path, [line for line in lines if line.strip()]), [])


def _names(path: Path, names: Any) -> list[str]:
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise DataError(f"{path}: the keys of names are not the numbers 0 to {len(names) - 1}. Number them so.")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, str | int) for name in names):
        raise DataError(f"{path}: holds no list of names. Write 'names: [cat, dog]'.")
    texts = [str(name).strip() for name in names]
    wrong = [name for name, count in Counter(texts).items() if count > 1 or not is_name(name)]
    if wrong:
        raise DataError(
            f"{path}: the name {shown(wrong[0])} occurs more than once, or is no text in one line. "
            "Give each class its own."
        )
    return texts


def _split_entries(values: dict[Any, Any]) -> list[tuple[str, str]]:
    found = []
    for split in SPLITS:
        entries = values.get(split)
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, str) and entry.strip():
                parts = [part for part in entry.strip().replace("\\", "/").split("/") if part not in ("", ".", "..")]
                found.append((split, "/".join(parts)))
    return found


def read_list(path: Path) -> list[str]:
    """Paths of images in a text file, one a line; none if it is not there, because lists are often left behind."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError, ValueError):
        return []
    return [line.strip().replace("\\", "/") for line in lines if line.strip()]


def read_outlines(path: Path, flaws: Counter[str]) -> list[tuple[int, tuple[Region, ...], bool]]:
    """Class number, outline in fractions of width and height, and whether only the box is known, of each line.

    Args:
        path: A text file; each line is a class number and either x and y of at least three points, or centre, width
            and height of a box.
        flaws: Counts what cannot be painted.

    Raises:
        MaskError: A line is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise MaskError(f"{path}: cannot be opened ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise MaskError(
            f"{path}: not text. A YOLO label file has a class number and coordinates in each line."
        ) from error
    found = []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        class_number, values = _numbers(f"{path}, line {number}", fields)
        box = len(values) == 4
        if box:
            x, y, width, height = values.tolist()
            outline = rectangle(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            flaws[BOX_ONLY] += 1
        else:
            outline = polygon(values.reshape(-1, 2))
        found.append((class_number, usable([outline], (1.0, 1.0), flaws), box))
    return found


def shapes(outlines: list[tuple[int, tuple[Region, ...], bool]], ids: Sequence[int]) -> list[Shape]:
    """What `read_outlines` read, with the class id of each class number."""
    return [Shape(ids[number], parts, ignore=box) for number, parts, box in outlines if parts]


def _numbers(where: str, fields: list[str]) -> tuple[int, np.ndarray]:
    try:
        values = np.array([float(field) for field in fields])
    except ValueError as error:
        raise MaskError(f"{where}: not numbers only, but {' '.join(fields)[:40]!r}.") from error
    if not (0 <= values[0] < 1e6 and values[0].is_integer()):
        raise MaskError(f"{where}: begins with {fields[0][:20]}, which is no class number from 0 on.")
    if len(fields) < 5 or len(fields) % 2 == 0:
        raise MaskError(
            f"{where}: {len(fields)} numbers; a class number and 2 for each of at least 3 points, or 4 for a box, are "
            "expected."
        )
    if (np.abs(values[1:]) > _FARTHEST).any():
        raise MaskError(
            f"{where}: a coordinate of {values[1:][np.abs(values[1:]) > _FARTHEST][0]:g}; YOLO's are fractions of the "
            "image's width and height, 0 to 1. Divide pixels by them."
        )
    return int(values[0]), values[1:]
