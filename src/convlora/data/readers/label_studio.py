"""Label Studio: its JSON export, with brush strokes, polygons, rectangles and ellipses of the tasks' images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from convlora.data.labels.format import LabelFormat
from convlora.data.pixels.channels import pixels_size
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
from convlora.data.readers.json_files import images_root, json_files, looks_like
from convlora.data.readers.label_studio_file import Task, read_tasks, regions, size_of
from convlora.data.readers.polygons import PolygonMask, Region, Shape, flaw_notes
from convlora.data.samples import Sample, first_few
from convlora.data.settings import BACKGROUND, DataSettings
from convlora.errors import DataError, MaskError


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    files = _exports(images, masks)
    return f"{files[0]} is a list of tasks with annotations and their results" if files else None


def read(settings: DataSettings) -> FoundData:
    """Samples with the masks of the newest completed annotation of each task; what was drawn later is painted over.

    Classes are the labels that occur, in alphabetical order, because the export does not hold the configuration.

    Raises:
        DataError: A file cannot be used: not such an export, images that are missing or meant twice.
        SettingsError: The settings contradict what the files say.
    """
    images, masks = Path(settings.images), Path(settings.masks) if settings.masks is not None else None
    given = masks if masks is not None else images
    paths = _exports(images, masks) or ([given] if given.is_file() else [])
    if not paths:
        raise DataError(f"{given}: there is no JSON export of Label Studio in it. Name one with --masks.")
    index = ImageIndex(images_root(images))
    tasks: list[tuple[Path, Task]] = []
    notes = []
    for path in paths:
        found, without, several = read_tasks(path)
        tasks += [(path, task) for task in found]
        notes += [f"left out {without} tasks of {path.name} without a completed annotation"] if without else []
        notes += [f"{several} tasks of {path.name} have several annotations: the newest counts"] if several else []
    places = _places(index, tasks)
    flaws: Counter[str] = Counter()
    drawn = [_drawn(path, task, index.root / place, settings, flaws) for (path, task), place in places]
    labels, ids = _classes(drawn, settings)
    samples, empty = [], []
    for name, ((path, task), place), (size, objects) in zip(
        sample_names([place for _, place in places]), places, drawn, strict=True
    ):
        if not objects:
            empty.append(name)
        shapes = tuple(Shape(ids[label], parts) for names, parts in objects for label in names)
        mask = PolygonMask(path, task.image, size, shapes, labels.multilabel)
        split = split_of(path.stem, place.parent.as_posix())
        samples.append(Sample(name, index.root / place, mask, split))
    notes += unannotated_note(empty, len(samples), "regions") + flaw_notes(flaws, "regions")
    notes += unlisted_note(index.unused([place for _, place in places]), first_few([path.name for path in paths]))
    settled, split_notes = settle_splits(samples)
    return FoundData(settled, labels, notes=notes + split_notes)


_Drawn = tuple[tuple[int, int], list[tuple[tuple[str, ...], tuple[Region, ...]]]]


def _drawn(path: Path, task: Task, image: Path, settings: DataSettings, flaws: Counter[str]) -> _Drawn:
    """Size of the image, and labels and parts of each region."""
    where = f"{path}: task {task.number}"
    size = size_of(task, where) or pixels_size(image, settings.limits, settings.channels)
    found = list(regions(task, size, flaws, where))
    several = next((names for names, _ in found if len(names) > 1), None)
    if several and settings.task != "multilabel":
        raise MaskError(
            f"{where}: a region has the labels {', '.join(several)}, but a pixel is of one class. Give it one label, "
            "or use --task multilabel."
        )
    return size, found


def _classes(drawn: Sequence[_Drawn], settings: DataSettings) -> tuple[LabelFormat, dict[str, int]]:
    names = sorted({label for _, objects in drawn for labels, _ in objects for label in labels})
    objects = [name for name in names if name.lower() != BACKGROUND]
    if not objects:
        raise MaskError(f"{settings.masks or settings.images}: none of the {len(drawn)} tasks has a labelled region.")
    return label_format(objects, settings), {name: objects.index(name) + 1 if name in objects else 0 for name in names}


def _exports(images: Path, masks: Path | None) -> list[Path]:
    return [path for path in json_files(images, masks) if looks_like(path, "[", ("annotations", "result"))]


def _places(index: ImageIndex, tasks: Sequence[tuple[Path, Task]]) -> list[tuple[tuple[Path, Task], PurePosixPath]]:
    """The tasks, each with the file of its image.

    Raises:
        PairingError: Images are missing, or of several tasks.
    """
    nowhere = [""] * len(tasks)
    places = index.find_all([task.image for _, task in tasks], nowhere)
    renamed = [task.image_without_hash if place is None else "" for (_, task), place in zip(tasks, places, strict=True)]
    others = index.find_all(renamed, nowhere)
    found = index.require_one_each(
        [task.image for _, task in tasks],
        [place or other for place, other in zip(places, others, strict=True)],
        first_few(dict.fromkeys(path for path, _ in tasks)),
        absent="Add them; Label Studio's JSON export holds no images.",
        twice="Keep one task each.",
    )
    return list(zip(tasks, found, strict=True))
