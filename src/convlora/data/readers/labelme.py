"""LabelMe, also as X-AnyLabeling writes it: a JSON file for each image, beside it or in a folder of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from convlora.data.pixels.channels import pixels_size
from convlora.data.readers.annotated import label_format, sample_names, settle_splits, split_of, unannotated_note
from convlora.data.readers.embedded import EmbeddedImage
from convlora.data.readers.found import FoundData
from convlora.data.readers.image_files import ImageIndex
from convlora.data.readers.labelme_file import LabelmeFile, LabelmeImage, is_labelme, read_labelme_file
from convlora.data.readers.polygons import PolygonMask, Shape, flaw_notes
from convlora.data.readers.voc_classes import read_names
from convlora.data.samples import Sample, first_few, stem
from convlora.data.settings import BACKGROUND, DataSettings
from convlora.data.sources import ImageSource
from convlora.errors import DataError, PairingError

_BACKGROUNDS, _IGNORED = (BACKGROUND, "_background_"), "__ignore__"
_LOOKED_AT = 3


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    given = masks if masks is not None else images
    if not given.is_dir():
        return None
    folders = [given, *sorted(entry for entry in given.iterdir() if entry.is_dir() and entry.name[0] != ".")]
    for folder in folders:
        some = sorted(file for file in folder.glob("*.[jJ][sS][oO][nN]") if file.name[0] != ".")[:_LOOKED_AT]
        for file in some:
            if is_labelme(file):
                return f"{file} has LabelMe's keys shapes and imagePath"
    return None


def read(settings: DataSettings) -> FoundData:
    """Samples of all JSON files, shapes painted in the order of drawing.

    Labels are the classes: as labels.txt beside the files orders them, else in alphabetical order. `__ignore__` is
    ignored, `_background_` is background.

    Raises:
        DataError: A file cannot be read, an image is missing or meant twice, or there are no shapes.
        SettingsError: The settings contradict what the files say.
    """
    images, given = Path(settings.images), Path(settings.masks or settings.images)
    found, notes = _json_files(given)
    flaws: Counter[str] = Counter()
    files = [read_labelme_file(path, flaws, settings.limits) for path in found]
    try:
        index: ImageIndex | None = ImageIndex(images)
    except PairingError:  # there may be none, if the images are in the JSON files
        index = None
        if not all(file.has_image for file in files):
            raise
    places = _places(given, files, index)
    classes = _classes(given, files)
    labels, ids = label_format(classes, settings), {name: class_id for class_id, name in enumerate(classes, 1)}
    samples, empty = [], []
    names = sample_names([PurePosixPath(file.path.relative_to(given).as_posix()) for file in files])
    for name, file, place in zip(names, files, places, strict=True):
        image: ImageSource = (
            EmbeddedImage(LabelmeImage(file.path)) if place is None or index is None else index.root / place
        )
        size = file.size or pixels_size(image, settings.limits, settings.channels)
        shapes = tuple(Shape(ids.get(label, 0), (region,), ignore=label == _IGNORED) for label, region in file.shapes)
        if not shapes:
            empty.append(name)
        split = split_of(file.path.relative_to(given).parent.as_posix())
        samples.append(Sample(name, image, PolygonMask(file.path, name, size, shapes, labels.multilabel), split))
    inside = sum(not isinstance(sample.image, Path) for sample in samples)
    notes += [f"{inside} images are taken out of their JSON files (imageData)"] if inside else []
    notes += unannotated_note(empty, len(samples), "shapes") + flaw_notes(flaws)
    without = index.unused(places) if index is not None else []
    notes += [f"left out {len(without)} images without a JSON file: {first_few(without)}"] if without else []
    settled, split_notes = settle_splits(samples)
    return FoundData(settled, labels, notes=notes + split_notes)


def _json_files(given: Path) -> tuple[list[Path], list[str]]:
    """LabelMe's files below a folder, and a note on others."""
    if given.is_file():
        raise PairingError(f"{given}: is one file; give the folder that holds a JSON file for each image.")
    every = sorted(file for file in given.rglob("*.[jJ][sS][oO][nN]") if file.is_file() and file.name[0] != ".")
    found = [file for file in every if is_labelme(file)]
    if not found:
        raise PairingError(
            f"{given}: has no JSON file of LabelMe, with shapes and imagePath, nor have the folders in it."
        )
    taken = set(found)
    others = [file.name for file in every if file not in taken]
    return found, [f"left out {len(others)} other JSON files: {first_few(others)}"] if others else []


def _places(given: Path, files: Sequence[LabelmeFile], index: ImageIndex | None) -> list[PurePosixPath | None]:
    """The image file of each JSON file; None if its image is within it.

    Raises:
        PairingError: Images are missing, or are those of several files.
    """
    if index is None:
        return [None] * len(files)
    near = [file.path.parent.name for file in files]
    written = index.find_all([file.image_path for file in files], near)
    by_stem: dict[str, list[PurePosixPath]] = {}
    for image in index.files:
        by_stem.setdefault(stem(Path(image.name)), []).append(image)
    places: list[PurePosixPath | None] = []
    for file, place in zip(files, written, strict=True):
        same = by_stem.get(stem(file.path), [])  # imagePath may be of another machine, or of before a renaming
        places.append(place or (same[0] if len(same) == 1 and not file.has_image else None))
    missing = [file for file, found in zip(files, places, strict=True) if found is None and not file.has_image]
    if missing:
        raise PairingError(
            f"{len(missing)} of {len(files)} images are not in {index.root} or the folders in it: "
            f"{first_few(f'{file.path.name} says imagePath={file.image_path!r}' for file in missing)}. Put them beside "
            "their JSON files, or give their folder with --images and that of the JSON files with --masks."
        )
    counts = Counter(place for place in places if place is not None)
    twice = [image for image, count in counts.items() if count > 1]
    if twice:
        raise PairingError(
            f"{given}: {len(twice)} images have several JSON files: {first_few(twice)}. Keep one of each."
        )
    return places


def _classes(given: Path, files: Sequence[LabelmeFile]) -> list[str]:
    """Names from class id 1 on.

    Raises:
        DataError: There is no shape, or a label is not in labels.txt.
    """
    used = {label for file in files for label, _ in file.shapes} - {*_BACKGROUNDS, _IGNORED}
    if not used:
        raise DataError(
            f"{given}: none of the {len(files)} JSON files has a shape with an area, so there are no masks. Draw "
            "polygons; flags of whole images are not read."
        )
    listed = next((file for file in (given / "labels.txt", given.parent / "labels.txt") if file.is_file()), None)
    if listed is None:
        return sorted(used)
    names = [name for name in dict.fromkeys(read_names(listed)) if name not in (*_BACKGROUNDS, _IGNORED)]
    unknown = sorted(used - set(names))
    if unknown:
        raise DataError(
            f"{listed} does not have {len(unknown)} of the labels in the JSON files: {first_few(unknown)}. Add them, "
            "or correct the labels."
        )
    return names
