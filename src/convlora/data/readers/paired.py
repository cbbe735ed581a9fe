"""A folder of images and a folder of masks."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path

from convlora.data.pixels.channels import image_suffixes
from convlora.data.pixels.decoding import IMAGE_SUFFIXES
from convlora.data.readers.annotated import settle_splits
from convlora.data.readers.class_files import CLASS, read_class_files
from convlora.data.readers.found import FoundData
from convlora.data.readers.image_files import ImageIndex
from convlora.data.readers.pairing import find_samples
from convlora.data.readers.patterns import Patterns, find_by_pattern
from convlora.data.readers.roots import folders_below, without_masks
from convlora.data.samples import first_few
from convlora.data.scientific.kinds import mask_kind
from convlora.data.settings import DataSettings
from convlora.errors import PairingError


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    if masks is not None and masks.is_file() and mask_kind(masks) is not None:
        return f"{masks} is a volume, a raster or a file of outlines on earth"
    if masks is None:
        below = [folder for _, folder in folders_below(images).values() if _holds_masks(folder)]
        return f"{below[0]} is a folder of image files" if below else None
    return f"{masks} is a folder of image files" if masks.is_dir() and _holds_masks(masks) else None


def read(settings: DataSettings) -> FoundData:
    """Pair images and masks by stem, see `find_samples`, or by a pattern; see `find_by_pattern`, `read_class_files`.

    Without masks, `images` may be the folder that both are below, see `folders_below`.
    """
    if settings.mask_pattern is not None and CLASS in settings.mask_pattern:
        return read_class_files(settings)
    if settings.mask_pattern is not None:
        patterns = Patterns(settings.mask_pattern, settings.image_pattern)
        return FoundData(find_by_pattern(settings.images, settings.masks, patterns))
    if settings.masks is None and folders_below(Path(settings.images)):
        return _read_below(Path(settings.images), image_suffixes(settings.channels))
    return FoundData(find_samples(settings.images, settings.masks, image_suffixes(settings.channels)))


def _holds_masks(folder: Path) -> bool:
    try:
        return any(entry.suffix.lower() in IMAGE_SUFFIXES or mask_kind(entry) for entry in folder.iterdir())
    except OSError:
        return False


def _read_below(root: Path, suffixes: Sequence[str]) -> FoundData:
    """Samples of each split with the split's name before theirs, if these repeat; and what was taken for what."""
    folders = folders_below(root)
    samples, notes = [], []
    for split, (images, masks) in folders.items():
        notes.append(f"{split or 'images and masks'}: {images} with {masks}")
        samples += [dataclasses.replace(s, split=split) for s in find_samples(str(images), str(masks), suffixes)]
    if max(Counter(sample.name for sample in samples).values()) > 1:
        samples = [dataclasses.replace(sample, name=f"{sample.split}/{sample.name}") for sample in samples]
    bare = without_masks(root)
    notes += [f"{folder} has no masks beside it and is left out" for folder in bare]
    notes += _elsewhere(root, {*bare, *(folder for pair in folders.values() for folder in pair)})
    notes += [
        f"{table} is not read; if it lists masks or splits, give it instead" for table in sorted(root.glob("*.csv"))
    ]
    if len(folders) > 1:
        return FoundData(sorted(samples, key=lambda sample: sample.name), notes=notes)
    settled, split_notes = settle_splits(samples)  # with masks for one split only, there is nothing to validate on
    return FoundData(settled, notes=notes + split_notes)


def _elsewhere(root: Path, taken: Set[Path]) -> list[str]:
    """That image files below a folder are in none of the folders that are read; none if there are no such files."""
    try:
        left = [file for file in ImageIndex(root).files if root / file.parent not in taken]
    except PairingError:  # there are volumes alone
        return []
    return [f"left out {len(left)} image files in other folders: {first_few(left)}"] if left else []
