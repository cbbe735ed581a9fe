"""COCO instances: one JSON file, or one a split, with polygons or run lengths of the objects of all images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from convlora.data.pixels.channels import pixels_size
from convlora.data.readers.annotated import (
    label_format,
    sample_names,
    settle_splits,
    split_of,
    unannotated_note,
    unlisted_note,
)
from convlora.data.readers.coco_file import Category, CocoFile, CocoImage, class_colours, class_names, read_coco_file
from convlora.data.readers.coco_shapes import shape
from convlora.data.readers.found import FoundData
from convlora.data.readers.image_files import ImageIndex
from convlora.data.readers.json_files import images_root, json_files, looks_like, shown
from convlora.data.readers.polygons import BOX_ONLY, PolygonMask, Shape, box_notes, flaw_notes, largest_first
from convlora.data.samples import Sample, first_few
from convlora.data.settings import DataSettings
from convlora.errors import DataError, MaskError, PairingError

KEYS = ("images", "annotations", "categories")


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    files = _instance_files(images, masks)
    return f"{files[0]} has the keys {', '.join(KEYS)}" if files else None


def read(settings: DataSettings) -> FoundData:
    """Samples with the masks that their annotations make, larger objects painted first.

    Raises:
        DataError: A file cannot be used: not such JSON, images that are missing or meant twice, boxes only.
        SettingsError: The settings contradict what the files say.
    """
    images, masks = Path(settings.images), Path(settings.masks) if settings.masks is not None else None
    paths, notes = _chosen_files(images, masks)
    index = ImageIndex(images_root(images))
    files = [read_coco_file(path) for path in paths]
    names, ids, class_notes = class_names(files)
    labels = label_format(names, settings, class_colours(files[0], ids, len(names)))
    found = find_files(index, files)
    flaws: Counter[str] = Counter()
    samples, empty, shapes = [], [], 0
    for name, (file, image, place) in zip(sample_names([place for *_, place in found]), found, strict=True):
        size = image.size or pixels_size(index.root / place, settings.limits, settings.channels)
        outlines = _shapes(file, image, size, ids, flaws)
        shapes += sum(not outline.ignore for outline in outlines)
        if not file.annotations.get(image.key):
            empty.append(name)
        mask = PolygonMask(file.path, image.file_name, size, largest_first(outlines), labels.multilabel)
        samples.append(Sample(name, index.root / place, mask, split_for(index.root, file.path, place)))
    boxes = flaws.pop(BOX_ONLY, 0)
    if boxes and not shapes:
        raise MaskError(
            f"{files[0].path}: its annotations are boxes without outlines ({boxes} of them), from which no masks can "
            "be made. Export polygons or masks."
        )
    notes += unannotated_note(empty, len(samples)) + class_notes + flaw_notes(flaws, "outlines") + box_notes(boxes)
    notes += unlisted_note(index.unused([place for *_, place in found]), first_few([path.name for path in paths]))
    settled, split_notes = settle_splits(samples)
    return FoundData(settled, labels, notes=notes + split_notes)


def find_files(index: ImageIndex, files: Sequence[CocoFile]) -> list[tuple[CocoFile, CocoImage, PurePosixPath]]:
    """Every image that is listed, with its file.

    Raises:
        PairingError: Files are missing, or listed more than once.
    """
    listed = [(file, image) for file in files for image in file.images]
    near = [_near(file.path, index.root) for file, _ in listed]
    names = [image.file_name for _, image in listed]
    where = first_few([file.path for file in files])
    if not listed:
        raise PairingError(f"{where}: lists no images. Export it again.")
    places = index.require_one_each(
        names,
        index.find_all(names, near),
        where,
        absent="Add them, or remove them from the file.",
        twice="List each once; to read one of several files, name it with --masks.",
    )
    return [(file, image, place) for (file, image), place in zip(listed, places, strict=True)]


def split_for(root: Path, path: Path, place: PurePosixPath) -> str | None:
    """The split that a JSON file's name, its folder's or its image's folder tells."""
    folder = path.parent.name if path.parent.resolve() != root.resolve() else ""
    return split_of(path.stem, folder, place.parent.as_posix())


def _near(path: Path, root: Path) -> str:
    """The folder where the images of a JSON file are likely: val2017 of instances_val2017.json, else its own."""
    return (
        path.stem.rpartition("_")[2]
        if path.parent.resolve() == root.resolve() or path.parent.name == "annotations"
        else path.parent.name
    )


def _instance_files(images: Path, masks: Path | None) -> list[Path]:
    return [
        path
        for path in json_files(images, masks)
        if looks_like(path, "{", KEYS) and not looks_like(path, "{", ("segments_info",))
    ]


def _chosen_files(images: Path, masks: Path | None) -> tuple[list[Path], list[str]]:
    """The files to read, and notes; COCO's own folder also holds files of captions and key points."""
    found = _instance_files(images, masks)
    given = masks if masks is not None else images
    if not found and given.is_file():
        found = [given]  # whose faults, reading it tells
    if not found:
        raise DataError(
            f"{given}: there is no COCO file, JSON with {', '.join(KEYS)}, in it or in a folder in it. Name one with "
            "--masks."
        )
    chosen = [path for path in found if path.name.startswith("instances")] or found
    others = [path.name for path in found if path not in chosen]
    return chosen, [f"left out {first_few(others)}, which are not instances"] if others else []


def _shapes(
    file: CocoFile, image: CocoImage, size: tuple[int, int], ids: dict[Category, int], flaws: Counter[str]
) -> list[Shape]:
    made = (
        shape(
            annotation,
            ids[annotation["category_id"]],
            size,
            flaws,
            f"{file.path}: annotation {shown(annotation.get('id'))}",
        )
        for annotation in file.annotations.get(image.key, ())
    )
    return [one for one in made if one is not None]
