"""The tables of a COCO file: images, categories and annotations, joined by ids."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from convlora.data.labels.colours import Colour
from convlora.data.readers.json_files import is_name, read_json, shown
from convlora.data.samples import first_few
from convlora.data.settings import BACKGROUND
from convlora.errors import DataError, MaskError

Category: TypeAlias = int | float | str
"""An id as written; equal numbers are equal."""
_KEPT = ("id", "image_id", "category_id", "iscrowd", "ignore", "segmentation", "bbox", "file_name", "segments_info")


@dataclass(frozen=True)
class CocoImage:
    """An entry of the images."""

    key: Category
    """Its id."""
    file_name: str
    size: tuple[int, int] | None
    """Height and width, if they are told."""


@dataclass(frozen=True)
class CocoFile:
    """A file, checked as far as the ids join."""

    path: Path
    images: list[CocoImage]
    categories: dict[Category, str]
    """Names by id."""
    above: dict[Category, str]
    """Names of the supercategories, by id of the category."""
    colours: dict[Category, Colour]
    """Of the categories that have one: those of panoptic files, and of what `convlora convert-masks` writes."""
    annotations: dict[Category, list[dict[str, Any]]]
    """By the id of the image, in the order of the file; outlines as arrays where they can be."""


def read_coco_file(path: Path) -> CocoFile:
    """Parse a file once.

    Memory: up to three times the size of the file while it is parsed, and one and a half times for the outlines.

    Raises:
        DataError: It is not such a file.
    """
    content = read_json(path, _compact)
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a COCO file, which is an object with images, annotations and categories.")
    named = [
        (id_of(entry, "id", f"{path}: categories[{i}]"), text_of(entry, "name", f"{path}: categories[{i}]"))
        for i, entry in enumerate(table(path, content, "categories"))
    ]
    categories = dict(named)
    above = {entry["id"]: str(entry.get("supercategory")) for entry in content["categories"]}
    colours = {
        entry["id"]: colour for entry in content["categories"] if (colour := _colour(entry.get("color"))) is not None
    }
    images = [_image(path, i, entry) for i, entry in enumerate(table(path, content, "images"))]
    known = Counter(image.key for image in images)
    for what, counts in (("categories", Counter(key for key, _ in named)), ("images", known)):
        if twice := [key for key, count in counts.items() if count > 1]:
            raise DataError(f"{path}: {len(twice)} ids of {what} occur more than once: {first_few(twice)}.")
    annotations: dict[Category, list[dict[str, Any]]] = defaultdict(list)
    for i, entry in enumerate(table(path, content, "annotations")):
        annotations[id_of(entry, "image_id", f"{path}: annotations[{i}]")].append(entry)
    strangers = [key for key in annotations if key not in known]
    if strangers:
        raise DataError(
            f"{path}: annotations of {len(strangers)} images that it does not list, with the ids "
            f"{first_few(strangers)}. Export it again, whole."
        )
    return CocoFile(path, images, categories, above, colours, dict(annotations))


def class_names(files: Sequence[CocoFile]) -> tuple[list[str], dict[Category, int], list[str]]:
    """Classes of all files, by ascending category id.

    A category that is named like the background is it. One without annotations that only stands above others, as
    some tools write it, is left out.

    Returns:
        Names from class id 1 on; class id of each category id; notes.

    Raises:
        DataError: The files differ, or an annotation is of no category.
    """
    first = files[0]
    for file in files[1:]:
        if file.categories != first.categories:
            raise DataError(
                f"{file.path} has other categories than {first.path}: "
                f"{_differences(file.categories, first.categories)}. Export both in the same way, or name one with "
                "--masks."
            )
    used = set[Category]().union(*(_used(file) for file in files))
    strangers = used - first.categories.keys()
    if strangers:
        raise MaskError(
            f"{first.path}: annotations of categories that are not listed, with the ids {first_few(strangers)}. Add "
            "them to its categories."
        )
    top = _top(first, used)
    notes, ids, names = [], {}, dict[str, int]()
    for key in sorted(first.categories.keys() - top, key=lambda key: (isinstance(key, str), key)):
        name = first.categories[key]
        ids[key] = 0 if name.lower() == BACKGROUND else names.setdefault(name, len(names) + 1)
    if top:
        notes.append(f"left out the category {first.categories[top.pop()]!r}, which only stands above the others")
    shared = sum(class_id > 0 for class_id in ids.values()) - len(names)
    if shared:
        notes.append(f"{shared} categories have the name of another and are read as the same class")
    return list(names), ids, notes


def class_colours(file: CocoFile, ids: Mapping[Category, int], count: int) -> list[Colour | None]:
    """The colours of the classes from id 1 on, None where the file says none.

    Args:
        file: Whose categories.
        ids: Class id of each category id, see `class_names`.
        count: Number of classes.
    """
    by_class = {ids[key]: colour for key, colour in file.colours.items() if key in ids}
    return [by_class.get(class_id) for class_id in range(1, count + 1)]


def id_of(entry: Any, key: str, where: str) -> Category:
    """A number or text that tells one entry from others.

    Raises:
        DataError: There is none.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    whole = type(value) is int or (isinstance(value, float) and math.isfinite(value))
    if not (whole or is_name(value)):
        raise DataError(f"{where} has {_given(value, key)}, which is a whole number. Export the file again.")
    return value  # type: ignore[return-value]  # one of these


def text_of(entry: Any, key: str, where: str) -> str:
    """Text that is not empty.

    Raises:
        DataError: There is none.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    if not is_name(value):
        raise DataError(f"{where} has {_given(value, key)}, which is text in one line. Export the file again.")
    return str(value).strip()


def _given(value: object, key: str) -> str:
    return f"no {key}" if value is None else f"{shown(value)} as its {key}"


def _top(file: CocoFile, used: Collection[Category]) -> set[Category]:
    """The category without annotations that all others are below, as Roboflow writes it; or none."""
    return {
        key
        for key, name in file.categories.items()
        if key not in used
        and len(file.categories) > 1
        and all(above == name for other, above in file.above.items() if other != key)
    }


def _colour(value: Any) -> Colour | None:
    if isinstance(value, list) and len(value) == 3 and all(type(part) is int and 0 <= part <= 255 for part in value):
        return value[0], value[1], value[2]
    return None


def _used(file: CocoFile) -> set[Category]:
    """Ids of the categories of all annotations, or of their segments."""
    return {
        id_of(item, "category_id", f"{file.path}: annotation {shown(entry.get('id'))}")
        for entries in file.annotations.values()
        for entry in entries
        for item in (table(file.path, entry, "segments_info") if "segments_info" in entry else [entry])
    }


def _image(path: Path, number: int, entry: Any) -> CocoImage:
    where = f"{path}: images[{number}]"
    file_name, key = text_of(entry, "file_name", where), id_of(entry, "id", where)
    size = entry.get("height"), entry.get("width")
    if size == (None, None):
        return CocoImage(key, file_name, None)
    height, width = (int(side) if isinstance(side, float) and side.is_integer() else side for side in size)
    if not all(type(side) is int and 0 < side < 2**31 for side in (height, width)):
        raise DataError(f"{where} has the height {shown(height)} and the width {shown(width)}; give both in pixels.")
    return CocoImage(key, file_name, (height, width))


def table(path: Path, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """A list of objects.

    Raises:
        DataError: It is none.
    """
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{path}: its {key} are no list. A COCO file has lists of images, annotations and categories.")
    wrong = next((i for i, entry in enumerate(entries) if not isinstance(entry, dict)), None)
    if wrong is not None:
        raise DataError(f"{path}: {key}[{wrong}] is no object. Export the file again.")
    return entries


def _compact(entry: dict[str, Any]) -> dict[str, Any]:
    """An annotation without what is not used, its numbers in arrays: lists of numbers take ten times the memory."""
    if "counts" in entry and isinstance(entry["counts"], list):
        entry["counts"] = _array(entry["counts"], np.int64)
    if "image_id" not in entry:
        return entry
    kept = {key: entry[key] for key in _KEPT if key in entry}
    outlines = kept.get("segmentation")
    if isinstance(outlines, list):
        single = bool(outlines) and all(isinstance(item, int | float) for item in outlines)
        kept["segmentation"] = [_array(item, np.float64) for item in ([outlines] if single else outlines)]
    return kept


def _array(values: Any, kind: type) -> Any:
    if isinstance(values, list) and {*map(type, values)} <= ({int, float} if kind is np.float64 else {int}):
        with contextlib.suppress(OverflowError):
            return np.array(values, dtype=kind)
    return values  # which is refused where it is used


def _differences(one: dict[Category, str], other: dict[Category, str]) -> str:
    different = [f"{key} {name!r}" for key, name in one.items() - other.items()]
    gone = [f"{key} {name!r}" for key, name in other.items() - one.items()]
    return f"{first_few(different) or 'none'} instead of {first_few(gone) or 'none'}"
