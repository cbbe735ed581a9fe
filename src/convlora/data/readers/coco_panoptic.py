"""COCO panoptic: a PNG of segment numbers for each image, and a JSON file that says which class each segment is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convlora.data.labels.bits import IGNORED, bit
from convlora.data.pixels.decoding import opened, upright
from convlora.data.readers.annotated import label_format, sample_names, settle_splits, unlisted_note
from convlora.data.readers.coco import KEYS, find_files, split_for
from convlora.data.readers.coco_file import (
    Category,
    CocoFile,
    class_colours,
    class_names,
    id_of,
    read_coco_file,
    table,
    text_of,
)
from convlora.data.readers.found import FoundData
from convlora.data.readers.image_files import ImageIndex
from convlora.data.readers.json_files import images_root, json_files, looks_like, shown
from convlora.data.readers.polygons import IGNORE
from convlora.data.samples import Sample, first_few
from convlora.data.settings import DataSettings, ImageLimits
from convlora.errors import DataError, MaskError, PairingError

VOID = 0
"""Segment number of pixels that are of no segment."""


@dataclass(frozen=True)
class SegmentMask:
    """A PNG of segment numbers, and the class of each segment."""

    path: Path
    """The PNG: red + 256 green + 256² blue is a pixel's segment number."""
    values: tuple[tuple[int, int], ...]
    """Pairs of a segment number and what its pixels become."""
    void: int
    """What pixels of no segment become."""

    def __str__(self) -> str:
        return str(self.path)

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """Class ids or bit fields: int32 (H, W).

        Raises:
            ImageError: The PNG is not readable within the limits.
            MaskError: It is not RGB, or has segments that the JSON file does not list.
        """
        with opened(self.path, limits) as image:
            picture = upright(image)
            if picture.mode != "RGB":
                raise MaskError(f"{self.path}: a PNG of segments is RGB, not {picture.mode}. Export it again.")
            red, green, blue = np.moveaxis(np.asarray(picture).astype(np.int32), 2, 0)
        numbers, places = np.unique(red + 256 * green + 65536 * blue, return_inverse=True)
        meanings = {VOID: self.void} | dict(self.values)
        strangers = [number for number in numbers.tolist() if number not in meanings]
        if strangers:
            raise MaskError(
                f"{self.path}: {len(strangers)} segments that its JSON file does not list, with the numbers "
                f"{first_few(strangers)}. Export both again."
            )
        values = np.array([meanings[number] for number in numbers.tolist()], dtype=np.int32)
        return values[places].reshape(red.shape)


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    files = _panoptic_files(images, masks)
    return f"{files[0]} has the keys {', '.join(KEYS)} and segments_info" if files else None


def read(settings: DataSettings) -> FoundData:
    """Samples with the classes of their segments; crowds, and pixels of no segment, are ignored.

    Raises:
        DataError: A file cannot be used: not such JSON, images or PNGs that are missing or meant twice.
        SettingsError: The settings contradict what the files say.
    """
    images, masks = Path(settings.images), Path(settings.masks) if settings.masks is not None else None
    given = masks if masks is not None else images
    paths = _panoptic_files(images, masks) or ([given] if given.is_file() else [])
    if not paths:
        raise DataError(
            f"{given}: there is no COCO panoptic file, JSON with {', '.join(KEYS)} and segments_info, in it or in a "
            "folder in it. Name one with --masks."
        )
    files = [read_coco_file(path) for path in paths]
    names, ids, class_notes = class_names(files)
    labels = label_format(names, settings, class_colours(files[0], ids, len(names)))
    root = images_root(images)
    index = ImageIndex(root, without=[folder for path in paths if not _holds(folder := _segment_folder(path), root)])
    found = find_files(index, files)
    pngs = {file.path: _segment_masks(file, ids, multilabel=labels.multilabel) for file in files}
    samples, bare = [], []
    for name, (file, image, place) in zip(sample_names([place for *_, place in found]), found, strict=True):
        mask = pngs[file.path].get(image.key)
        if mask is None:
            bare.append(name)
            continue
        samples.append(Sample(name, index.root / place, mask, split_for(index.root, file.path, place)))
    if not samples:
        raise MaskError(f"{first_few(paths)}: none of the {len(found)} images has segments. Export them again.")
    notes = class_notes + ([f"left out {len(bare)} images without segments: {first_few(bare)}"] if bare else [])
    segments = {mask.path for masks in pngs.values() for mask in masks.values()}
    others = [place for place in index.unused([place for *_, place in found]) if index.root / place not in segments]
    notes += unlisted_note(others, first_few([path.name for path in paths]))
    settled, split_notes = settle_splits(samples)
    return FoundData(settled, labels, notes=notes + split_notes)


def _panoptic_files(images: Path, masks: Path | None) -> list[Path]:
    return [path for path in json_files(images, masks) if looks_like(path, "{", (*KEYS, "segments_info"))]


def _segment_folder(path: Path) -> Path:
    """Where the PNGs of a JSON file are: in the folder of its name, else beside it."""
    named = path.with_suffix("")
    return named if named.is_dir() else path.parent


def _holds(folder: Path, other: Path) -> bool:
    """Whether one folder is another, or above it."""
    return other.resolve().is_relative_to(folder.resolve())


def _segment_masks(file: CocoFile, ids: dict[Category, int], *, multilabel: bool) -> dict[Category, SegmentMask]:
    """The mask of each image that has one, by the image's id."""
    entries = [(key, entry) for key, several in file.annotations.items() for entry in several]
    folder = _segment_folder(file.path)
    names = [text_of(entry, "file_name", f"{file.path}: the annotation of image {key}") for key, entry in entries]
    places = ImageIndex(folder).find_all(names, [""] * len(names))
    missing = [name for name, place in zip(names, places, strict=True) if place is None]
    if missing:
        raise PairingError(
            f"{file.path}: {len(missing)} of {len(names)} PNGs of segments are not in {folder}: {first_few(missing)}."
        )
    several = [key for key, count in Counter(key for key, _ in entries).items() if count > 1]
    if several:
        raise DataError(f"{file.path}: {len(several)} images have several annotations: {first_few(several)}.")
    void = IGNORED if multilabel else IGNORE
    return {
        key: SegmentMask(folder / place, _values(file.path, entry, ids, void, multilabel=multilabel), void)
        for (key, entry), place in zip(entries, places, strict=True)
        if place is not None
    }


def _values(
    path: Path, entry: dict[str, Any], ids: dict[Category, int], ignored: int, *, multilabel: bool
) -> tuple[tuple[int, int], ...]:
    pairs = {}
    for segment in table(path, entry, "segments_info"):
        where = f"{path}: a segment of {entry['file_name']}"
        number, class_id = id_of(segment, "id", where), ids[id_of(segment, "category_id", where)]
        if type(number) is not int or not 0 < number < 2**24 or number in pairs:
            raise DataError(f"{where} has the number {shown(number)}; each is 1 to 2²⁴ - 1, and occurs once.")
        crowd = segment.get("iscrowd") in (1, True)
        pairs[number] = ignored if crowd else bit(class_id) if multilabel else class_id
    return tuple(sorted(pairs.items()))
