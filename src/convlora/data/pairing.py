"""Find the images of a data set and the mask of each; whatever does not pair up is reported."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convlora.data.decoding import IMAGE_SUFFIXES
from convlora.data.listing import read_listing
from convlora.data.samples import Sample, first_few, stem, unique_names
from convlora.errors import PairingError, SettingsError

__all__ = ["Pairing", "Sample", "find_images", "find_samples", "pair_by_stem"]


@dataclass(frozen=True)
class Pairing:
    """Images and masks sorted out; each file given is in exactly one place."""

    samples: tuple[Sample, ...]
    images_alone: tuple[Path, ...]
    """Images without a mask."""
    masks_alone: tuple[Path, ...]
    """Masks without an image."""
    ambiguous: tuple[Path, ...]
    """Images and masks of stems that several images, or several masks, have."""


def find_samples(images: str, masks: str | None) -> list[Sample]:
    """Images with their masks, sorted by name.

    Args:
        images: A folder, or a CSV file (see `read_listing`).
        masks: The folder of masks, each with the stem of its image; None for a CSV file.

    Raises:
        PairingError: a folder cannot be used, or not every file has exactly one partner.
        SettingsError: `masks` is missing, or given beside a CSV file.
    """
    source = Path(images)
    if source.suffix.lower() == ".csv" and not source.is_dir():
        if masks is not None:
            raise SettingsError(f"masks={masks!r} is given, but {images} lists the masks already; leave it out.")
        return read_listing(source)
    if masks is None:
        raise SettingsError(f"masks is missing: give the folder with the masks of {images}, or a CSV file as images.")
    if source.is_dir() and Path(masks).is_dir() and source.samefile(masks):
        raise PairingError(f"images and masks are the same folder, {images}; put the masks in one of their own.")
    image_files, mask_files = _image_files(source, "images"), _image_files(Path(masks), "masks")
    pairing = pair_by_stem(image_files, mask_files)
    problems = _problems(pairing)
    if problems:
        raise PairingError(
            f"{len(pairing.samples)} pairs among {len(image_files)} images in {images} and {len(mask_files)} masks in "
            f"{masks}; {'; '.join(problems)}. The name of a mask must equal its image's up to the suffix, "
            f"but compare {image_files[0].name} with {mask_files[0].name}. Rename, add or remove files."
        )
    return list(pairing.samples)


def find_images(path: str) -> list[Sample]:
    """Images without masks: those directly in a folder, sorted by name, or the one file given.

    Raises:
        PairingError: there is no such folder or file, or the folder has no images.
    """
    source = Path(path)
    files = [source] if source.is_file() else _image_files(source, "images")
    names = unique_names([Path(file.name) for file in files])
    return [Sample(name, file) for name, file in sorted(zip(names, files, strict=True))]


def pair_by_stem(images: Sequence[Path], masks: Sequence[Path]) -> Pairing:
    """Pair files of equal stem, in whatever Unicode form; samples are sorted by name."""
    by_stem: dict[str, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for side, files in enumerate((images, masks)):
        for file in files:
            by_stem[stem(file)][side].append(file)
    samples: list[Sample] = []
    images_alone: list[Path] = []
    masks_alone: list[Path] = []
    ambiguous: list[Path] = []
    for name, (own_images, own_masks) in sorted(by_stem.items()):
        if len(own_images) > 1 or len(own_masks) > 1:
            ambiguous += own_images + own_masks
        elif not own_masks:
            images_alone += own_images
        elif not own_images:
            masks_alone += own_masks
        else:
            samples.append(Sample(name, own_images[0], own_masks[0]))
    return Pairing(tuple(samples), tuple(images_alone), tuple(masks_alone), tuple(ambiguous))


def _problems(pairing: Pairing) -> list[str]:
    found = {
        "images without a mask": pairing.images_alone,
        "masks without an image": pairing.masks_alone,
        "files that share a name": pairing.ambiguous,
    }
    return [f"{len(files)} {what} ({first_few(f.name for f in files)})" for what, files in found.items() if files]


def _image_files(folder: Path, role: str) -> list[Path]:
    """Files with an image's suffix directly in a folder, sorted; hidden ones are left out."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except FileNotFoundError as error:
        raise PairingError(f"{role}: {folder} does not exist; give a folder or, for images, a CSV file.") from error
    except NotADirectoryError as error:
        raise PairingError(f"{role}: {folder} is a file; give a folder or, for images, a .csv file.") from error
    except OSError as error:
        raise PairingError(f"{role}: {folder} cannot be read ({error.strerror}).") from error
    files = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]
    if files:
        return files
    kinds = Counter("folders" if entry.is_dir() else entry.suffix or "no suffix" for entry in entries)
    held = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or "nothing"
    advice = " Files in folders below it are not searched; give one of these." if kinds["folders"] else ""
    raise PairingError(f"{role}: {folder} has no image files ({' '.join(IMAGE_SUFFIXES)}); it holds {held}.{advice}")
