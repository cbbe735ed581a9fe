"""Masks of which every class has a file of its own, such as `7_leaf.png` and `7_stem.png` of the image `7.jpg`."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from convlora.data.labels.bits import IGNORED, bit
from convlora.data.labels.format import LabelFormat, share
from convlora.data.pixels.images import image_size
from convlora.data.pixels.masks import read_mask
from convlora.data.readers.annotated import sample_names
from convlora.data.readers.found import FoundData
from convlora.data.readers.image_files import ImageIndex
from convlora.data.readers.multilabel import ignored_value, require_one_value
from convlora.data.readers.patterns import Patterns
from convlora.data.samples import Sample, first_few
from convlora.data.settings import DataSettings, ImageLimits
from convlora.errors import MaskError, PairingError, SettingsError

CLASS = "{class}"
"""What stands for the name of the class in `mask_pattern`."""
_ANY = "\0"  # is in no path
_IGNORED_ID = 255


@dataclass(frozen=True)
class ClassFilesMask:
    """The files of one image: non-zero where the class is; a class without a file is nowhere."""

    image: Path
    files: tuple[tuple[int, Path], ...]
    """Class id and file."""
    ignore_index: int | None
    """Value of pixels that are ignored; None if there is none."""
    multilabel: bool
    """Whether classes may overlap; then the values are bit fields of `convlora.data.labels.bits`, else class ids."""

    def __str__(self) -> str:
        return f"the masks of {self.image}"

    @property
    def path(self) -> Path:
        """The first file, or the image if there is none."""
        return self.files[0][1] if self.files else self.image

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """Values int32 (H, W).

        Raises:
            ImageError: A file cannot be read.
            MaskError: A file holds several values, or has another size; or classes overlap and may not.
        """
        values = np.zeros(image_size(self.image, limits) if not self.files else (0, 0), dtype=np.int32)
        overlap = 0
        for number, (class_id, path) in enumerate(self.files):
            found = read_mask(path, limits)
            if not number:
                values = np.zeros(found.shape, dtype=np.int32)
            if found.shape != values.shape:
                raise MaskError(f"{path}: {_size(found)}, but {self.path} has {_size(values)}. Draw one of them again.")
            ignored = found == self.ignore_index if self.ignore_index is not None else np.zeros(found.shape, dtype=bool)
            inside = (found != 0) & ~ignored
            require_one_value(str(path), found[inside])
            if self.multilabel:
                inside &= values != IGNORED
                values[inside] |= bit(class_id)
                values[ignored] = IGNORED
            else:
                overlap += int(np.count_nonzero(inside & (values != 0) & (values != _IGNORED_ID)))
                values[inside & (values != _IGNORED_ID)] = class_id
                values[ignored] = _IGNORED_ID
        if overlap:
            raise MaskError(
                f"{self}: classes overlap in {share(overlap, values.size)}. Say --task multilabel, or mend the masks."
            )
        return values


def read_class_files(settings: DataSettings) -> FoundData:
    """Samples whose masks are the files that `mask_pattern` names, with a class of `classes` for {class}.

    Raises:
        SettingsError: The classes are not named.
        PairingError: A folder cannot be read, files fit several times, or no image, or a mask that no image has.
    """
    pattern, classes = str(settings.mask_pattern), settings.classes
    if classes is None or len(classes) < 2:
        raise SettingsError(
            f"mask_pattern={pattern!r} needs the names of the classes, as they are in the names of files: "
            "--classes background,NAME,…"
        )
    root, mask_root = Path(settings.images), Path(settings.images if settings.masks is None else settings.masks)
    same = mask_root.resolve() == root.resolve()
    image_files = ImageIndex(root, [] if same else [mask_root]).files
    mask_files = image_files if same else ImageIndex(mask_root, [root]).files
    patterns = {
        i: Patterns(pattern.replace(CLASS, name), settings.image_pattern) for i, name in enumerate(classes) if i
    }
    found = _files_of_images(image_files, mask_files, patterns)
    taken = {mask for masks in found.values() for _, mask in masks}
    images = [file for file in found if not (same and file in taken)]
    bare = [file for file in images if not found[file]]
    if same:
        orphans = _of_other_classes(bare, images, Patterns(pattern.replace(CLASS, _ANY), settings.image_pattern))
    else:
        orphans = [file for file in mask_files if file not in taken]
    if orphans:
        raise PairingError(
            f"{len(orphans)} of {len(mask_files)} files in {mask_root} are the mask of no image and class "
            f"({first_few(orphans)}). Correct --mask_pattern or --classes, or remove them."
        )
    if others := [file for file in image_files if file not in found and not (same and file in taken)]:
        raise PairingError(
            f"{len(others)} of {len(image_files)} files in {root} fit neither pattern ({first_few(others)}). Correct "
            "--image_pattern, --mask_pattern or --classes, or remove them."
        )
    if len(bare) == len(images):
        places = [place for image in images[:1] for p in patterns.values() if (place := p.place(image))]
        raise PairingError(
            f"none of the {len(images)} images in {root} has a mask in {mask_root}; those of {images[0]} would be "
            f"{first_few(places)}. Correct --mask_pattern or --classes."
        )
    return _found(settings, root, mask_root, {image: found[image] for image in images}, bare)


def _files_of_images(
    image_files: list[PurePosixPath], mask_files: list[PurePosixPath], patterns: dict[int, Patterns]
) -> dict[PurePosixPath, list[tuple[int, PurePosixPath]]]:
    """Class ids and masks of every file that may be an image."""
    any_pattern = next(iter(patterns.values()))
    by_place: dict[str, list[PurePosixPath]] = defaultdict(list)
    for file in mask_files:
        by_place[any_pattern.comparable(file)].append(file)
    found: dict[PurePosixPath, list[tuple[int, PurePosixPath]]] = {}
    owners: dict[PurePosixPath, tuple[PurePosixPath, int]] = {}
    for image in image_files:
        if any_pattern.key(image) is None:
            continue
        found[image] = []
        for class_id, pattern in patterns.items():
            place = pattern.place(image)
            masks = [mask for mask in by_place.get(place, []) if mask != image] if place is not None else []
            if len(masks) > 1:
                raise PairingError(f"{image}: several files are its mask of one class: {first_few(masks)}. Keep one.")
            for mask in masks:
                other = owners.setdefault(mask, (image, class_id))
                if other != (image, class_id):
                    raise PairingError(f"{mask} would be the mask of {other[0]} and of {image}. Rename one of them.")
                found[image].append((class_id, mask))
    return found


def _of_other_classes(
    files: list[PurePosixPath], images: list[PurePosixPath], pattern: Patterns
) -> list[PurePosixPath]:
    """Which of the files would be the mask of an image if a class, `_ANY` in the pattern, were called so."""
    ends: dict[str, set[str]] = defaultdict(set)
    for place in filter(None, map(pattern.place, images)):
        start, _, end = place.partition(_ANY)
        ends[start].add(end)

    def fits(path: str) -> bool:
        cuts = range(len(path) + 1)
        starts = [i for i in cuts if path[:i] in ends]
        return any(path[j:] in ends[path[:i]] for i in starts for j in cuts[i + 1 :] if "/" not in path[i:j])

    return [file for file in files if fits(pattern.comparable(file))]


def _found(
    settings: DataSettings,
    root: Path,
    mask_root: Path,
    found: dict[PurePosixPath, list[tuple[int, PurePosixPath]]],
    bare: list[PurePosixPath],
) -> FoundData:
    multilabel = settings.task == "multilabel"
    classes = tuple(settings.classes or ())
    samples = []
    for name, (image, masks) in zip(sample_names(list(found)), found.items(), strict=True):
        files = tuple((class_id, mask_root / mask) for class_id, mask in masks)
        mask = ClassFilesMask(root / image, files, ignored_value(settings), multilabel)
        samples.append(Sample(name, root / image, mask))
    notes = [f"masks of one file a class (--mask_pattern '{settings.mask_pattern}'): not 0 where the class is"]
    if bare:
        notes.append(f"{len(bare)} of {len(found)} images without masks are background only: {first_few(bare)}")
    labels = (
        LabelFormat(classes, "bits", IGNORED, multilabel=True)
        if multilabel
        else LabelFormat(classes, "ids", _IGNORED_ID)
    )
    return FoundData(sorted(samples, key=lambda sample: sample.name), labels, notes=notes, named=False)


def _size(values: np.ndarray) -> str:
    return f"{values.shape[0]} x {values.shape[1]} pixels (height x width)"
