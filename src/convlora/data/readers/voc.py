"""Pascal VOC's layout: JPEGImages, SegmentationClass and lists of names; as VOC, CVAT and LabelMe's tools write it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from convlora.data.pixels.decoding import IMAGE_SUFFIXES
from convlora.data.readers.annotated import split_of
from convlora.data.readers.found import FoundData
from convlora.data.readers.voc_classes import read_names, with_classes
from convlora.data.samples import Sample, first_few, stem
from convlora.data.settings import DataSettings
from convlora.errors import PairingError, SettingsError

_IMAGES = "JPEGImages"
_MASKS = ("SegmentationClass", "SegmentationClassPNG")  # LabelMe's tool keeps arrays in the first
_LISTS = Path("ImageSets") / "Segmentation"


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    if masks is not None or not (images / _IMAGES).is_dir() or not any((images / name).is_dir() for name in _MASKS):
        return None
    return f"{images} has the folders {_IMAGES} and {_MASKS[0]}"


def read(settings: DataSettings) -> FoundData:
    """Samples of the lists or, without lists, of all masks.

    Raises:
        PairingError: Folders or files are missing, or an image is in two splits.
        SettingsError: The labelmap cannot be used.
        DataError: The first mask cannot be read.
    """
    root = Path(settings.images)
    if settings.masks is not None:
        raise SettingsError(f"masks={settings.masks!r} is given, but format voc finds them in {root}; leave it out.")
    images, masks = _files(root / _IMAGES), _masks(root)
    names, notes = _listed(root, set(masks))
    missing = [name for name in names if name not in images]
    if missing:
        raise PairingError(
            f"{root}: {len(missing)} of {len(names)} images are not in {_IMAGES}: {first_few(missing)}. Add them, or "
            f"take their masks, or their lines in {_LISTS}, away."
        )
    samples = [Sample(name, images[name], masks[name], split) for name, split in sorted(names.items())]
    unlisted = sorted(masks.keys() - names.keys())
    unmasked = sorted(images.keys() - masks.keys())
    if unlisted:
        notes.append(f"left out {len(unlisted)} masks that no list names: {first_few(unlisted)}")
    if unmasked:
        notes.append(f"left out {len(unmasked)} images without a mask: {first_few(unmasked)}")
    return with_classes(FoundData(samples, notes=notes), root, settings)


def _files(folder: Path) -> dict[str, Path]:
    """Image files of a folder, and of folders in it, by their path without suffix."""
    if not folder.is_dir():
        raise PairingError(f"images: {folder} is not there; format voc takes the folder that holds {_IMAGES}.")
    found: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file():
            found[(file.relative_to(folder).parent / stem(file)).as_posix()].append(file)
    twice = [files[1] for files in found.values() if len(files) > 1]
    if twice:
        raise PairingError(f"{folder}: {len(twice)} files share the name of another: {first_few(twice)}. Keep one.")
    return {name: files[0] for name, files in found.items()}


def _masks(root: Path) -> dict[str, Path]:
    for folder in _MASKS:
        found = _files(root / folder) if (root / folder).is_dir() else {}
        if found:
            return found
    raise PairingError(f"masks: {root} has no masks ({' '.join(IMAGE_SUFFIXES)}) in {' or '.join(_MASKS)}.")


def _listed(root: Path, masks: set[str]) -> tuple[dict[str, str | None], list[str]]:
    """Split, or None, by name of each sample; and notes."""
    lists = {file.stem: read_names(file) for file in sorted((root / _LISTS).glob("*.txt"))}
    lists = {name: lines for name, lines in lists.items() if lines}
    splits = {name: split for name in lists if name != "trainval" and (split := split_of(name)) is not None}
    if not lists:
        return dict.fromkeys(masks), [f"no lists in {_LISTS}: all {len(masks)} masks are used"]
    notes, chosen = [], dict[str, str | None]()
    for name, lines in lists.items():
        absent = [line for line in lines if line not in masks]
        if absent and len(absent) == len(lines) and splits.get(name) == "test":
            notes.append(f"left out the list {name}: none of its {len(lines)} images has a mask")
            continue
        if absent:
            raise PairingError(
                f"{root / _LISTS / name}.txt: {len(absent)} of {len(lines)} names have no mask: {first_few(absent)}. "
                "Add the masks, or take the names off the list."
            )
        for line in lines:
            before, split = chosen.get(line), splits.get(name)
            if before and split and before != split:
                raise PairingError(f"{root / _LISTS}: {line} is in {before} and in {split}; take it out of one.")
            chosen[line] = before or split
    unsplit = [name for name, split in chosen.items() if split is None]
    if unsplit and len(unsplit) < len(chosen):
        notes.append(f"{len(unsplit)} listed images are in no split, so they are left out: {first_few(unsplit)}")
        chosen = {name: split for name, split in chosen.items() if split is not None}
    if len(set(chosen.values())) == 1:
        return dict.fromkeys(chosen), [*notes, f"the lists {first_few(lists)} make no splits, so images are split anew"]
    return chosen, [*notes, f"split by {', '.join(f'{name}.txt' for name in splits)} of {_LISTS}"]
