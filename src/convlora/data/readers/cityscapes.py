"""Cityscapes' layout: leftImg8bit and gtFine, each with folders of splits and cities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from convlora.data.labels.format import LabelFormat
from convlora.data.pixels.masks import read_mask
from convlora.data.readers.annotated import sample_names
from convlora.data.readers.found import FoundData
from convlora.data.readers.image_files import ImageIndex
from convlora.data.samples import SPLITS, Sample, first_few
from convlora.data.settings import BACKGROUND, DataSettings
from convlora.errors import DataError, PairingError

_IMAGES, _MASKS = "leftImg8bit", ("gtFine", "gtCoarse")
_IDS, _TRAIN_IDS = "labelIds", "labelTrainIds"
_LAST_ID = 33
CLASSES = (  # name, label id, colour; the train id is the place in this list
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    roots = _roots(images, masks)
    if roots is None or not all(root.is_dir() for root in roots):
        return None
    return f"{roots[0]} and {roots[1].name} are folders of Cityscapes" if roots else None


def read(settings: DataSettings) -> FoundData:
    """Samples of the folders train, val and, if its masks are no dummies, test.

    The 19 classes of Cityscapes' evaluation become classes 1 to 19, all else is ignored.

    Raises:
        PairingError: Folders are missing, or images and masks do not pair up.
        DataError: The first mask of the test cannot be read.
    """
    roots = _roots(Path(settings.images), Path(settings.masks) if settings.masks is not None else None)
    if roots is None:
        raise PairingError(f"{settings.images}: has no folders {_IMAGES} and {' or '.join(_MASKS)}, as Cityscapes has.")
    images, masks = ImageIndex(roots[0]), ImageIndex(roots[1])
    kind = _kind(masks)
    by_key = {_key(file): file for file in masks.files if file.stem.endswith(f"_{kind}")}
    keyed = {_key(file): file for file in images.files if file.stem.endswith(f"_{_IMAGES}")}
    foreign = [file for file in images.files if not file.stem.endswith(f"_{_IMAGES}")]
    alone, orphans = sorted(keyed.keys() - by_key.keys()), sorted(by_key.keys() - keyed.keys())
    hidden = [key for key in alone if key.startswith("test/")] if not any(k.startswith("test/") for k in by_key) else []
    if len(hidden) < len(alone) or orphans or foreign:
        problems: dict[str, Sequence[object]] = {
            "images without a mask": sorted(set(alone) - set(hidden)),
            "masks without an image": orphans,
            f"images not called *_{_IMAGES}": foreign,
        }
        listed = "; ".join(f"{len(some)} {what} ({first_few(some)})" for what, some in problems.items() if some)
        raise PairingError(f"{roots[0]}: {listed}. Unpack both archives whole, or remove what is left over.")
    keys = sorted(keyed.keys() & by_key.keys())
    samples = [
        Sample(name, roots[0] / keyed[key], roots[1] / by_key[key], _split(key))
        for name, key in zip(sample_names([PurePosixPath(key) for key in keys]), keys, strict=True)
    ]
    samples.sort(key=lambda sample: sample.name)
    notes = [f"masks are the files *_{kind}.png; classes are the 19 of the evaluation, all else is ignored"]
    unused = masks.unused(by_key.values())
    notes += [f"not used in {roots[1].name}: {len(unused)} other images, such as {unused[0].name}"] if unused else []
    notes += [f"left out {len(hidden)} test images, which have no masks"] if hidden else []
    return _without_dummies(FoundData(samples, _labels(kind, settings), notes=notes), settings)


def _roots(images: Path, masks: Path | None) -> tuple[Path, Path] | None:
    if masks is not None:
        return (images, masks) if images.name == _IMAGES and masks.name in _MASKS else None
    found = next((images / name for name in _MASKS if (images / name).is_dir()), None)
    return (images / _IMAGES, found) if found is not None and (images / _IMAGES).is_dir() else None


def _kind(masks: ImageIndex) -> str:
    """Which of the files are the masks."""
    for kind in (_IDS, _TRAIN_IDS):
        if any(file.stem.endswith(f"_{kind}") for file in masks.files):
            return kind
    raise PairingError(f"{masks.root}: has no files *_{_IDS}.png or *_{_TRAIN_IDS}.png; unpack gtFine there.")


def _key(file: PurePosixPath) -> str:
    """Split, city and frame: what an image and its masks have in common."""
    name = file.stem.removesuffix(f"_{_IMAGES}")
    for kind in (_IDS, _TRAIN_IDS):
        name = name.removesuffix(f"_{kind}")
    for folder in _MASKS:
        name = name.removesuffix(f"_{folder}")
    return (file.parent / name).as_posix()


def _split(key: str) -> str:
    first = key.split("/")[0]
    return "train" if first.startswith("train") else first  # train_extra is coarse


def _labels(kind: str, settings: DataSettings) -> LabelFormat:
    ignored = settings.ignore_index
    if kind == _IDS:
        known = {label_id: class_id for class_id, (_, label_id, _) in enumerate(CLASSES, 1)}
        table = {value: known.get(value, ignored) for value in range(_LAST_ID + 1)}
    else:
        table = {train_id: train_id + 1 for train_id in range(len(CLASSES))}
    table |= {255: ignored}  # license plates, as an id of 8 bits, and what is not evaluated
    names, colours = [name for name, _, _ in CLASSES], [colour for *_, colour in CLASSES]
    return LabelFormat(
        (BACKGROUND, *names), "table", ignored, table=tuple(table.items()), colours=((0, 0, 0), *colours)
    )


def _without_dummies(found: FoundData, settings: DataSettings) -> FoundData:
    """Leave out a test whose masks are ignored throughout: the real ones are not published.

    Raises:
        DataError: A mask cannot be read, or a folder is no split.
    """
    other = sorted({str(sample.split) for sample in found.samples} - set(SPLITS))
    if other:
        raise DataError(f"{settings.images}: the folders {first_few(other)} are none of {', '.join(SPLITS)}.")
    tests: Sequence[Sample] = [sample for sample in found.samples if sample.split == "test"]
    if not tests or found.labels is None:
        return found
    mask = tests[0].required_mask()
    ids = found.labels.decode(read_mask(mask, settings.limits), mask)
    if np.any(ids != found.labels.ignore_index):
        return found
    kept = [sample for sample in found.samples if sample.split != "test"]
    note = f"left out {len(tests)} test images: their masks are dummies, as Cityscapes publishes them"
    return FoundData(kept, found.labels, notes=[*found.notes, note])
