"""Roboflow's semantic segmentation masks: NAME_mask.png beside NAME.jpg, and _classes.csv, in a folder a split."""

from __future__ import annotations

import csv
import dataclasses
from itertools import islice
from pathlib import Path

from convlora.data.readers.annotated import settle_splits, split_of
from convlora.data.readers.columns import names_format
from convlora.data.readers.found import FoundData
from convlora.data.readers.image_files import folders_in
from convlora.data.readers.patterns import Patterns, find_by_pattern
from convlora.data.settings import DataSettings
from convlora.data.sources import file_of
from convlora.errors import DataError, SettingsError

_CLASSES = "_classes.csv"
_HEADER = ["Pixel Value", "Class"]  # its files for classification have another one
_MASK = "{stem}_mask.png"
_MOST_ROWS = 1000  # more than a mask has values; a file for classification may have millions


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    tables = _tables(images) if masks is None else []
    return f"{tables[0]} has the columns {' and '.join(_HEADER)}" if tables else None


def read(settings: DataSettings) -> FoundData:
    """Samples of all folders, whose names tell the splits.

    Raises:
        DataError: The classes are not told, or differ; or images and masks do not pair up.
        SettingsError: Masks are given apart.
    """
    root = Path(settings.images)
    if settings.masks is not None:
        raise SettingsError(f"masks={settings.masks!r} is given, but the masks are beside the images; leave it out.")
    tables = _tables(root)
    if not tables:
        raise DataError(f"{root}: there is no {_CLASSES} with the columns {' and '.join(_HEADER)} in it.")
    names = _class_names(tables[0])
    for other in tables[1:]:
        if _class_names(other) != names:
            raise DataError(f"{other} has other classes than {tables[0]}. Export both in the same way.")
    samples = [
        dataclasses.replace(sample, split=split_of(file_of(sample.image).parent.relative_to(root).as_posix()))
        for sample in find_by_pattern(str(root), None, Patterns(_MASK))
    ]
    settled, notes = settle_splits(samples)
    return FoundData(settled, names_format(names, settings, tables[0]), notes=notes)


def _tables(root: Path) -> list[Path]:
    """The files of classes in a folder and the folders in it."""
    return [file for folder in (root, *folders_in(root)) if _rows(file := folder / _CLASSES)[:1] == [_HEADER]]


def _class_names(table: Path) -> list[str]:
    """Names from class id 0 on.

    Raises:
        DataError: The values are not the numbers from 0 on, each with its name.
    """
    rows = _rows(table)[1:]
    if [row[0] for row in rows] != [str(number) for number in range(len(rows))] or any(len(row) != 2 for row in rows):
        raise DataError(f"{table}: its pixel values are not 0, 1, 2 … in order, each with one class. Export it again.")
    return [name for _, name in rows]


def _rows(table: Path) -> list[list[str]]:
    """The fields of a table, without the spaces around them; none if it is no text."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            return [[field.strip() for field in row] for row in islice(csv.reader(lines), _MOST_ROWS) if row]
    except (OSError, ValueError, csv.Error):  # not there, or not such a table
        return []
