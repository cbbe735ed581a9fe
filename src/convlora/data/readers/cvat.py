"""CVAT for images 1.1: one XML file beside the images, with polygons, boxes, ellipses and masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from convlora.data.labels.format import LabelFormat
from convlora.data.readers.annotated import (
    label_format,
    sample_names,
    settle_splits,
    split_of,
    unannotated_note,
    unlisted_note,
)
from convlora.data.readers.cvat_file import ROOT, CvatFile, DrawnImage, read_cvat_file
from convlora.data.readers.found import FoundData
from convlora.data.readers.image_files import ImageIndex
from convlora.data.readers.polygons import PolygonMask, Shape, flaw_notes
from convlora.data.readers.xml_files import outermost
from convlora.data.samples import Sample, first_few
from convlora.data.settings import BACKGROUND, DataSettings
from convlora.errors import DataError


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    file = _xml_file(images, masks)
    return f"{file} is XML of <{ROOT}>" if file is not None else None


def read(settings: DataSettings) -> FoundData:
    """Samples with the masks that their shapes make, painted in their z_order.

    Raises:
        DataError: The file cannot be used: not such XML, images that are missing or meant twice.
        SettingsError: The settings contradict what the file says.
    """
    images, masks = Path(settings.images), Path(settings.masks) if settings.masks is not None else None
    given = masks if masks is not None else images
    path = _xml_file(images, masks) or (given if given.is_file() else None)
    if path is None:
        raise DataError(f"{given}: there is no annotations.xml of CVAT in it. Name the file with --masks.")
    file = read_cvat_file(path)
    index = ImageIndex(images.parent if images.is_file() else images)
    places = _places(index, file)
    labels, ids, notes = _classes(file, settings)
    samples, empty = [], []
    for name, image, place in zip(sample_names(places), file.images, places, strict=True):
        shapes = tuple(Shape(ids[shape.label], (shape.region,)) for shape in image.shapes)
        if not shapes:
            empty.append(name)
        mask = PolygonMask(path, image.name, image.size, shapes, labels.multilabel)
        samples.append(Sample(name, index.root / place, mask, _split(image, place)))
    notes += unannotated_note(empty, len(samples), "shapes") + flaw_notes(file.flaws)
    notes += unlisted_note(index.unused(places), path.name)
    settled, split_notes = settle_splits(samples)
    return FoundData(settled, labels, notes=notes + split_notes)


def _xml_file(images: Path, masks: Path | None) -> Path | None:
    given = masks if masks is not None else images
    file = given / "annotations.xml" if given.is_dir() else given
    return file if file.suffix.lower() == ".xml" and outermost(file) == ROOT else None


def _split(image: DrawnImage, place: PurePosixPath) -> str | None:
    return split_of(image.subset) if image.subset else split_of(place.parent.as_posix())


def _classes(file: CvatFile, settings: DataSettings) -> tuple[LabelFormat, dict[str, int], list[str]]:
    """The labels of the task, in its order and colours; labels of other kinds only if a shape has them."""
    used = {shape.label for image in file.images for shape in image.shapes}
    undeclared = sorted(used - file.labels.keys())
    names = [name for name in (*file.labels, *undeclared) if name.lower() != BACKGROUND]
    ids = {name: names.index(name) + 1 if name in names else 0 for name in (*file.labels, *undeclared)}
    note = f"{len(undeclared)} labels that {file.path.name} does not declare: {first_few(undeclared)}"
    labels = label_format(names, settings, [file.labels.get(name) for name in names])
    return labels, ids, [note] if undeclared else []


def _places(index: ImageIndex, file: CvatFile) -> Sequence[PurePosixPath]:
    """The file of each image.

    Raises:
        PairingError: Files are missing, or are those of several images.
    """
    names = [image.name for image in file.images]
    return index.require_one_each(
        names,
        index.find_all(names, [image.subset for image in file.images]),
        file.path,
        absent="Export with images, or give their folder with --images and the file with --masks.",
        twice="Keep the folders of the subsets, or annotate each image once.",
    )
