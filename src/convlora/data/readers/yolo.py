"""YOLO segmentation: folders images and labels, a text file of polygons for each image, and data.yaml with names."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path, PurePosixPath

import numpy as np

from convlora.data.labels.format import LabelFormat
from convlora.data.pixels.channels import pixels_size
from convlora.data.readers.annotated import (
    label_format,
    sample_names,
    settle_splits,
    split_of,
    unannotated_note,
)
from convlora.data.readers.found import FoundData
from convlora.data.readers.image_files import ImageIndex, folders_in
from convlora.data.readers.polygons import (
    BOX_ONLY,
    MOST_CLASSES,
    Polygon,
    PolygonMask,
    Region,
    Shape,
    box_notes,
    flaw_notes,
    largest_first,
)
from convlora.data.readers.yolo_file import (
    YoloTable,
    read_list,
    read_names,
    read_outlines,
    read_table,
    shapes,
)
from convlora.data.samples import Sample, first_few
from convlora.data.settings import BACKGROUND, DataSettings, ImageLimits
from convlora.errors import DataError, MaskError, PairingError

_YAML = (".yaml", ".yml")
_NAMES = "classes.txt"
_NOT_LABELS = (_NAMES, "labels.txt", "notes.txt", "obj.names", "train.txt", "val.txt", "test.txt", "readme.txt")


@dataclass(frozen=True)
class YoloMask:
    """The mask of one image: the polygons of its text file, in fractions of the image's sides."""

    path: Path
    """The text file; it need not be there if the image has no objects."""
    image: Path
    shapes: tuple[Shape, ...] = field(compare=False, repr=False)
    """In the order of painting."""
    multilabel: bool = False
    """Whether shapes may overlap, so that the values are bit fields."""
    channels: int | None = None
    """How many raw channels the image has; None if it is a picture."""

    def __str__(self) -> str:
        return str(self.path)

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """Class ids or bit fields, in the size of the image: int32 (H, W); as `PolygonMask`."""
        height, width = pixels_size(self.image, limits, self.channels)
        scaled = tuple(
            Shape(shape.class_id, tuple(_scaled(part, height, width) for part in shape.parts), shape.ignore)
            for shape in self.shapes
        )
        return PolygonMask(self.path, self.image.name, (height, width), scaled, self.multilabel).read_mask(limits)


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    if masks is not None:
        return f"{masks} holds text files" if masks.is_dir() and _holds_texts(masks) else None
    root = images.parent if images.suffix.lower() in _YAML and images.is_file() else images
    folders = [folder for folder in _label_folders(root) if _holds_texts(folder)]
    return f"{folders[0]} holds text files" if folders else None


def read(settings: DataSettings) -> FoundData:
    """Samples with the masks that their text files make, larger objects painted first.

    Raises:
        DataError: A file cannot be used: lines that are no polygons, class numbers without a name, labels without an
            image, boxes only.
        SettingsError: The settings contradict what the files say.
    """
    images, masks = Path(settings.images), Path(settings.masks) if settings.masks is not None else None
    given = images if images.suffix.lower() in _YAML and images.is_file() else None
    root = images.parent if given else images
    index = ImageIndex(root)
    pairs, notes = _pairs(index, masks)
    table = _table(given, root, masks)
    flaws: Counter[str] = Counter()
    outlines = {place: read_outlines(label, flaws) for place, label in pairs.items() if label.is_file()}
    boxes = flaws.pop(BOX_ONLY, 0)
    if boxes and not any(not box for lines in outlines.values() for *_, box in lines):
        raise MaskError(
            f"{root}: its labels are boxes ({boxes} of them), from which no masks can be made. Export polygons."
        )
    largest = max((number for lines in outlines.values() for number, *_ in lines), default=-1)
    names, name_notes = _names(table, settings, largest, root)
    ids, labels = _classes(names, settings)
    split_for = _splits(table, root)
    samples, empty = [], []
    for name, (place, label) in zip(sample_names(list(pairs)), pairs.items(), strict=True):
        if not outlines.get(place):
            empty.append(name)
        painted = largest_first(shapes(outlines.get(place, []), ids))
        mask = YoloMask(label, root / place, painted, labels.multilabel, settings.channels)
        samples.append(Sample(name, root / place, mask, split_for(place)))
    notes += name_notes + unannotated_note(empty, len(samples), "labels")
    notes += flaw_notes(flaws, "outlines") + box_notes(boxes)
    settled, split_notes = settle_splits(samples)
    return FoundData(settled, labels, named=table is not None, notes=notes + split_notes)


def _classes(names: list[str], settings: DataSettings) -> tuple[list[int], LabelFormat]:
    """The class id of each class number, and the classes; one named like the background is it."""
    objects = [name for name in names if name.lower() != BACKGROUND]
    return [objects.index(name) + 1 if name in objects else 0 for name in names], label_format(objects, settings)


def _scaled(part: Region, height: int, width: int) -> Region:
    return part.scaled(width, height) if isinstance(part, Polygon) else part


def _label_folders(root: Path) -> list[Path]:
    """Folders named labels in a folder, or in one of its folders, with images beside them."""
    candidates = [root, *folders_in(root)]
    return [entry / "labels" for entry in candidates if (entry / "labels").is_dir() and (entry / "images").is_dir()]


def _holds_texts(folder: Path) -> bool:
    """Whether there are label files in a folder, at any depth."""
    return any(_is_label(file) for place, *_ in os.walk(folder) for file in _texts(Path(place)))


def _texts(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.txt") if file.name[0] != "." and file.name.lower() not in _NOT_LABELS)


def _is_label(path: Path) -> bool:
    """Whether the first line is empty or begins with a class number; a few bytes are read."""
    try:
        with path.open("rb") as stream:
            fields = stream.readline(200).split()
    except OSError:
        return False
    return not fields or fields[0].isdigit()


def _pairs(index: ImageIndex, masks: Path | None) -> tuple[dict[PurePosixPath, Path], list[str]]:
    """The label file of each image, whether it is there or not; and notes.

    Raises:
        PairingError: There are no such images, or label files without one.
    """
    pairs = {}
    for place in index.files:
        if masks is not None:
            pairs[place] = masks / place.with_suffix(".txt")
        elif "images" in place.parts[:-1]:
            last = len(place.parts) - 2 - place.parts[-2::-1].index("images")
            label = PurePosixPath(*place.parts[:last], "labels", *place.parts[last + 1 :]).with_suffix(".txt")
            pairs[place] = index.root / label
    if not pairs:
        raise PairingError(
            f"{index.root}: has no folder images, with a folder labels beside it. Name both in this way."
        )
    twice = [place for place, count in Counter(pairs.values()).items() if count > 1]
    if twice:
        raise PairingError(f"{index.root}: {len(twice)} label files are of several images each: {first_few(twice)}.")
    folders = {masks} if masks is not None else {_top_of(label) for label in pairs.values()}
    texts = {file for folder in folders for file in folder.rglob("*.txt") if file.name.lower() not in _NOT_LABELS}
    alone = sorted(texts - set(pairs.values()))
    if alone:
        raise PairingError(
            f"{index.root}: {len(alone)} label files have no image of their name: {first_few(alone)}. Add the images, "
            "or remove the files."
        )
    others = index.unused(list(pairs))
    return pairs, [f"left out {len(others)} image files outside of images: {first_few(others)}"] if others else []


def _top_of(label: Path) -> Path:
    """The folder labels that a label file is in."""
    return next(folder for folder in label.parents if folder.name == "labels")


def _table(given: Path | None, root: Path, masks: Path | None) -> YoloTable | None:
    """The file given, or the only one that there is; else the list of names that Label Studio writes."""
    if given is not None:
        return read_table(given)
    above = [*root.absolute().parents[:2], masks, masks.parent] if masks is not None else []
    for folder in [root, *above]:
        files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in _YAML and file.is_file()]
        usual = [file for file in files if file.stem in ("data", "dataset")]
        files = usual or (files if folder == root else [])
        if len(files) > 1:
            raise DataError(f"{folder}: {first_few(f.name for f in files)} may name the classes. Give one as --images.")
        if files:
            return read_table(files[0])
    lists = (folder / _NAMES for folder in [root, *above])
    return next((read_names(file) for file in lists if file.is_file()), None)


def _names(table: YoloTable | None, settings: DataSettings, largest: int, root: Path) -> tuple[list[str], list[str]]:
    """Names from class number 0 on, and notes."""
    if table is not None:
        if largest >= len(table.names):
            raise MaskError(
                f"{table.path}: has {len(table.names)} names, but class number {largest} occurs in the labels. "
                "Add its name."
            )
        return table.names, []
    if settings.classes is not None:
        if largest >= len(settings.classes) - 1:
            raise MaskError(
                f"classes={','.join(settings.classes)} has {len(settings.classes)} names, but class number {largest} "
                f"of {root} is class {largest + 1}, since the background comes first. List all."
            )
        return list(settings.classes[1:]), []
    if largest >= MOST_CLASSES:
        raise MaskError(f"{root}: class number {largest} occurs in the labels; up to {MOST_CLASSES - 1} are allowed.")
    made_up = [f"class_{number}" for number in range(1, largest + 2)]
    return made_up, [f"no data.yaml names the classes: {largest + 1} of them, by the numbers in the labels"]


def _splits(table: YoloTable | None, root: Path) -> Callable[[PurePosixPath], str | None]:
    """The split of an image: as data.yaml has it, else as its folders are named.

    An image is the line of a list that has the longest end in common with its path, at least a folder and the name.
    The function raises a `PairingError` for an image in the lists of several splits.
    """
    folders: dict[tuple[str, ...], set[str]] = defaultdict(set)
    listed: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)  # by the name of the file
    for split, entry in table.splits if table is not None else []:
        if entry.lower().endswith(".txt"):
            for line in map(PurePosixPath, read_list(root / entry)):
                listed[line.name].append((line.parts, split))
        else:
            folders[tuple(entry.split("/"))].add(split)
    told = {folder: min(splits) for folder, splits in folders.items() if len(splits) == 1}  # else it is of no split

    def split_for(place: PurePosixPath) -> str | None:
        alike = [(_alike(parts, place.parts), split) for parts, split in listed.get(place.name, ())]
        best = {split for length, split in alike if length == max(alike)[0] and length > 1}
        if len(best) > 1:
            raise PairingError(f"{root}: {place} is in the lists of {' and '.join(sorted(best))}. Take it out of one.")
        if best:
            return best.pop()
        inside = [
            (len(tail), split)
            for folder, split in told.items()
            for tail in (folder[k:] for k in range(len(folder)))  # begins with folders of another machine
            if place.parts[: len(tail)] == tail and (tail == folder or set(tail) != {"images"})  # as of all splits
        ]
        return max(inside)[1] if inside else split_of(place.parent.as_posix())

    return split_for


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts two paths have in common at their ends."""
    same = (a == b for a, b in zip(reversed(one), reversed(other), strict=False))
    return sum(1 for _ in takewhile(bool, same))
