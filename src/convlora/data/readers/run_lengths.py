"""Tables of run lengths, as competitions on Kaggle give and take them: a row for each object, or class, of an image.

Runs are pairs of a start and a length, separated by spaces. Pixels are counted from 1, down the columns.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from convlora.data.pixels.channels import pixels_size
from convlora.data.pixels.decoding import IMAGE_SUFFIXES
from convlora.data.readers.annotated import (
    label_format,
    sample_names,
    settle_splits,
    split_of,
    unannotated_note,
    unlisted_note,
)
from convlora.data.readers.found import FoundData
from convlora.data.readers.image_files import ImageIndex
from convlora.data.readers.json_files import is_name, shown
from convlora.data.readers.polygons import PolygonMask, Region, Shape, largest_first
from convlora.data.readers.regions import runs
from convlora.data.samples import Sample, first_few, stem
from convlora.data.settings import BACKGROUND, DataSettings
from convlora.errors import DataError, MaskError, SettingsError

_RUNS = ("encodedpixels", "rle", "rle_mask", "encoding")
_IMAGES = ("imageid", "image_id", "id", "img", "image", "filename")
_IMAGES_AND_CLASSES = ("imageid_classid", "image_label")  # IMAGE_CLASS
_CLASSES = ("classid", "class_id", "class", "label")
_NOTHING = ("", "nan", "-1")  # instead of runs
_NUMBERS = re.compile("[0-9 ]+")
_MOST_ROWS = 100_000  # of one image
_LONGEST = 2**26  # characters of a field; a scan of a slide has some millions


@dataclass(frozen=True)
class _Row:
    """A row of a table, with its number in the file."""

    number: int
    image: str
    label: str
    """Name or number of the class; empty if there is one class only."""
    runs: str


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    tables = _tables(images, masks)
    return f"{tables[0]} has a column of run lengths" if tables else None


def read(settings: DataSettings) -> FoundData:
    """Samples with the masks that their runs make, larger objects painted first.

    Raises:
        DataError: The table cannot be used, or its images are missing.
        SettingsError: There are several tables, or the settings contradict what it says.
    """
    images, masks = Path(settings.images), Path(settings.masks) if settings.masks is not None else None
    tables = _tables(images, masks)
    if len(tables) != 1:
        found = f"several tables of run lengths ({first_few(tables)})" if tables else "no table of run lengths"
        raise SettingsError(f"{masks or images}: {found}. Name one with --masks.")
    table, index = tables[0], ImageIndex(images)
    by_image: dict[str, list[_Row]] = defaultdict(list)
    for row in _rows(table):
        by_image[row.image].append(row)
    if not by_image:
        raise DataError(f"{table}: has no rows below its header. Export it again.")
    names = _with_suffix(list(by_image), index)
    places = index.require_one_each(
        list(by_image),
        index.find_all(names, [""] * len(names)),
        table,
        absent="Give the folder of the images with --images and the table with --masks.",
        twice="Write whole file names.",
    )
    classes = _classes(table, {row.label for rows in by_image.values() for row in rows}, settings)
    labels = label_format([name for _, name in classes], settings)
    ids = {label: class_id for class_id, (label, _) in enumerate(classes, 1)}
    samples, empty = [], []
    for name, (image, rows), place in zip(sample_names(places), by_image.items(), places, strict=True):
        if len(rows) > _MOST_ROWS:
            raise MaskError(f"{table}: has {len(rows)} rows of {image}; up to {_MOST_ROWS} objects can be painted.")
        size = pixels_size(index.root / place, settings.limits, settings.channels)
        shapes = [Shape(ids.get(r.label, 0), (_region(table, r, size),)) for r in rows if r.runs not in _NOTHING]
        if not shapes:
            empty.append(name)
        mask = PolygonMask(table, image, size, largest_first(shapes), labels.multilabel)
        samples.append(Sample(name, index.root / place, mask, split_of(place.parent.as_posix())))
    notes = unannotated_note(empty, len(samples), "runs") + unlisted_note(index.unused(places), table.name)
    settled, split_notes = settle_splits(samples)
    named = any(label and not label.isdecimal() for label in ids)
    return FoundData(settled, labels, named=named, notes=notes + split_notes)


def _tables(images: Path, masks: Path | None) -> list[Path]:
    """The table given, or those in the folder of the images but for samples of what is to be handed in."""
    if masks is not None:
        files = [masks] if masks.suffix.lower() == ".csv" and masks.is_file() else []
    else:
        files = sorted(images.glob("*.[cC][sS][vV]")) if images.is_dir() else []
        files = [file for file in files if not file.name.lower().startswith(("sample_submission", "."))]
    return [file for file in files if _columns(file) is not None]


def _columns(table: Path) -> tuple[int, int | None, int, bool] | None:
    """Places of the image, class (if there is one) and runs, and whether the first holds both; None if it is other."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines:
            header = [field.strip().lower() for field in next(csv.reader([lines.readline(2**16)]), [])]
    except (OSError, ValueError, csv.Error):
        return None
    places = [_place(header, names) for names in (_IMAGES_AND_CLASSES, _IMAGES, _CLASSES, _RUNS)]
    both, image, label, run = places
    if run is None or (both is None and image is None):
        return None
    return (both, None, run, True) if both is not None else (image or 0, label, run, False)


def _place(header: Sequence[str], names: Sequence[str]) -> int | None:
    found = [place for place, name in enumerate(header) if name in names]
    return found[0] if len(found) == 1 else None


def _rows(table: Path) -> Iterator[_Row]:
    """The rows below the header.

    Raises:
        DataError: It is no such table.
    """
    columns = _columns(table)
    if columns is None:
        raise DataError(f"{table}: has no columns of images and run lengths.")
    image, label, run, both = columns
    try:
        with table.open(encoding="utf-8-sig", newline="") as lines, _long_fields():
            for number, fields in enumerate(csv.reader(lines), 1):
                if number == 1 or not fields:
                    continue
                if len(fields) <= max(image, label or 0, run):
                    raise DataError(f"{table}: row {number} has {len(fields)} fields. Correct it.")
                name, text = fields[image].strip(), fields[label].strip() if label is not None else ""
                if both:
                    name, _, text = name.rpartition("_")
                if not is_name(name) or ((both or label is not None) and not is_name(text)):
                    raise DataError(f"{table}: row {number} does not say its image, or its class. Correct it.")
                yield _Row(number, name, text, fields[run].strip())
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{table}: not a CSV file in UTF-8 ({error}). Export it again.") from error


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(_LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _with_suffix(names: Sequence[str], index: ImageIndex) -> list[str]:
    """The names of files; a table may leave suffixes out."""
    by_stem: dict[str, list[PurePosixPath]] = defaultdict(list)
    for file in index.files:
        by_stem[stem(Path(file.name))].append(file)
    files = [[] if name.lower().endswith(IMAGE_SUFFIXES) else by_stem[stem(Path(f"{name}.png"))] for name in names]
    return [own[0].as_posix() if len(own) == 1 else name for name, own in zip(names, files, strict=True)]


def _classes(table: Path, found: Collection[str], settings: DataSettings) -> list[tuple[str, str]]:
    """Classes as the table calls them, but for the background, in the order of numbers or letters, with their names.

    Raises:
        SettingsError: The names that were given are too few or too many.
    """
    labels = sorted(found, key=lambda label: (int(label) if label.isdecimal() else -1, label))
    if any(label and not label.isdecimal() for label in labels):
        return [(label, label) for label in labels if label.lower() != BACKGROUND]
    if settings.classes is None:
        return [(label, f"class_{label}" if label else "foreground") for label in labels]
    if len(settings.classes) != len(labels) + 1:
        raise SettingsError(
            f"classes={','.join(settings.classes)} are {len(settings.classes)} names, the background included, but "
            f"{table} has {len(labels)} classes: {first_few(label or 'without a name' for label in labels)}."
        )
    return list(zip(labels, settings.classes[1:], strict=True))


def _region(table: Path, row: _Row, size: tuple[int, int]) -> Region:
    """The pixels of a row.

    Raises:
        MaskError: Its runs are no such pairs, overlap, or lie beyond the image.
    """
    where = f"{table}: the runs of row {row.number} ({shown(row.image)})"
    if not _NUMBERS.fullmatch(row.runs):
        raise MaskError(f"{where} are not whole numbers, but {shown(row.runs[:40])}. Correct them.")
    numbers = np.fromstring(row.runs, dtype=np.int64, sep=" ")  # a list of texts would take twenty times the memory
    pixels = size[0] * size[1]
    if len(numbers) % 2 or (numbers < 1).any() or (numbers > pixels).any():
        raise MaskError(
            f"{where} are not pairs of a start and a length between 1 and {pixels}, the pixels of the image. Correct "
            "them, or give the images that they were made for."
        )
    starts, lengths = numbers[0::2] - 1, numbers[1::2]
    ends = np.concatenate([[0], starts + lengths])
    gaps = np.append(starts, pixels) - ends
    made = runs(np.append(np.stack([gaps[:-1], lengths], axis=1).ravel(), gaps[-1]), *size, by_columns=True)
    if isinstance(made, str):
        raise MaskError(f"{where} are not in ascending order, overlap, or end beyond the image. Correct them.")
    return made
