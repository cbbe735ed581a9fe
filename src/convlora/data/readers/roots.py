"""The folders of images and of masks below one folder, for the whole set or for each split."""

from __future__ import annotations

from pathlib import Path

from convlora.data.readers.annotated import SPLIT_WORDS
from convlora.data.readers.image_files import folders_in

_IMAGES = ("images", "image", "imgs", "img")
_MASKS = ("masks", "mask", "labels", "label")

Folders = dict[str | None, tuple[Path, Path]]
"""Images and masks by split; None of the whole set."""


def folders_below(root: Path) -> Folders:
    """ROOT/images with ROOT/masks; or these in ROOT/train, ROOT/val and ROOT/test; or the splits in each of both.

    Names count in upper and lower case; labels is taken for masks, too. Empty if the folder is not laid out so, or in
    several ways at once.
    """
    found = [folders for folders in (_of_splits(root), _of_all(root)) if folders]
    return found[0] if len(found) == 1 else {}


def without_masks(root: Path) -> list[Path]:
    """The images of splits that have no masks, such as a test set that is kept secret."""
    taken = {images for images, _ in folders_below(root).values()}
    pair = _pair(root)
    there = _splits(pair[0]).values() if pair is not None else [_named(own, _IMAGES) for own in _splits(root).values()]
    return [images for images in there if images is not None and images not in taken]


def _of_all(root: Path) -> Folders:
    pair = _pair(root)
    if pair is None:
        return {}
    images, masks = (_splits(folder) for folder in pair)
    return {split: (images[split], masks[split]) for split in images if split in masks} or {None: pair}


def _of_splits(root: Path) -> Folders:
    return {split: pair for split, folder in _splits(root).items() if (pair := _pair(folder)) is not None}


def _pair(folder: Path) -> tuple[Path, Path] | None:
    images, masks = _named(folder, _IMAGES), _named(folder, _MASKS)
    return (images, masks) if images is not None and masks is not None else None


def _splits(folder: Path) -> dict[str, Path]:
    """The folders that are called like splits; none if two are called like the same one, such as val and valid."""
    found = [below for below in folders_in(folder) if below.name.lower() in SPLIT_WORDS]
    splits = {SPLIT_WORDS[below.name.lower()]: below for below in found}
    return splits if len(splits) == len(found) else {}


def _named(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The only folder of one of these names."""
    found = [below for below in folders_in(folder) if below.name.lower() in names]
    return found[0] if len(found) == 1 else None
