"""Find the images of a data set and the mask of each; whatever does not pair up is reported."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convlora.data.pixels.decoding import IMAGE_SUFFIXES
from convlora.data.readers.listing import read_listing
from convlora.data.samples import Sample, counted, first_few, unique_names
from convlora.data.scientific.choosing import with_intensity
from convlora.data.scientific.expanding import Reading, expand
from convlora.data.scientific.kinds import image_kind, is_vectors, mask_kind
from convlora.data.scientific.listing import image_name, pairs_by_reference, scientific_files
from convlora.errors import PairingError, SettingsError

__all__ = ["Pairing", "Sample", "find_images", "find_samples", "pair_by_stem"]

_DEFAULT = Reading()


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


def find_samples(images: str, masks: str | None, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Sample]:
    """Images with their masks, sorted by name.

    Args:
        images: A folder, or a CSV file (see `read_listing`).
        masks: The folder of masks, each with the stem of its image; None for a CSV file.
        suffixes: Of image files, in lower case.

    Raises:
        PairingError: a folder cannot be used, or not every file has exactly one partner.
        SettingsError: `masks` is missing, or given beside a CSV file.
    """
    source = Path(images)
    if source.suffix.lower() == ".csv" and not source.is_dir():
        if masks is not None:
            raise SettingsError(f"masks={masks!r} is given, but {images} lists the masks already; leave it out.")
        return read_listing(source, suffixes)
    if masks is None:
        raise SettingsError(
            f"masks is missing: give the folder with the masks of {images}, a CSV file as images, or "
            "--mask_pattern if they are beside the images."
        )
    if source.is_dir() and Path(masks).is_dir() and source.samefile(masks):
        raise PairingError(
            f"images and masks are the same folder, {images}; put the masks in one of their own, or "
            "say how they are called with --mask_pattern, as in '{stem}_mask.png'."
        )
    image_files, mask_files = _image_files(source, "images", suffixes), _image_files(Path(masks), "masks")
    if (referenced := pairs_by_reference(image_files, mask_files)) is not None:
        return referenced
    if Path(masks).is_file() and (len(image_files) == 1 or is_vectors(Path(masks))):  # one for one, or outlines of all
        return [Sample(image_name(file), file, Path(masks)) for file in image_files]
    pairing = pair_by_stem(image_files, mask_files)
    problems = _problems(pairing)
    if problems:
        alone = pairing.images_alone[:1] + pairing.masks_alone[:1]
        compared = f", but compare {alone[0].name} with {alone[1].name}" if len(alone) == 2 else ""
        raise PairingError(
            f"{len(pairing.samples)} pairs among {len(image_files)} images in {images} and {len(mask_files)} masks in "
            f"{masks}; {'; '.join(problems)}. The name of a mask must equal its image's up to the "
            f"suffix{compared}. Rename, add or remove files, or say how masks are called with --mask_pattern."
        )
    return list(pairing.samples)


def find_images(path: str, suffixes: Sequence[str] = IMAGE_SUFFIXES, how: Reading = _DEFAULT) -> list[Sample]:
    """Images without masks: those directly in a folder with one of the suffixes, sorted by name, or the one file given.

    Volumes and stacks (see `convlora.data.scientific`) give a sample a slice or page.

    Raises:
        PairingError: there is no such folder or file, or the folder has no images.
        ImageError, SettingsError: the header of a volume or stack cannot be read; see `expand`.
    """
    source = Path(path)
    files = [source] if source.is_file() else _image_files(source, "images", suffixes)
    names = [image_name(file) for file in files]
    if len(set(names)) < len(names):
        names = unique_names([Path(file.name) for file in files])
    samples = [Sample(name, file) for name, file in sorted(zip(names, files, strict=True))]
    return with_intensity(expand(samples, how)[0], how.intensity)


def pair_by_stem(images: Sequence[Path], masks: Sequence[Path]) -> Pairing:
    """Pair files of equal stem, in whatever Unicode form; samples are sorted by name."""
    by_stem: dict[str, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for side, files in enumerate((images, masks)):
        for file in files:
            by_stem[image_name(file)][side].append(file)
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
        ("image without a mask", "images without a mask"): pairing.images_alone,
        ("mask without an image", "masks without an image"): pairing.masks_alone,
        ("file that shares a name", "files that share a name"): pairing.ambiguous,
    }
    listed = {what: first_few(file.name for file in files) for what, files in found.items()}
    return [f"{counted(len(files), *what)} ({listed[what]})" for what, files in found.items() if files]


def _image_files(folder: Path, role: str, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Files with an image's suffix directly in a folder, and volumes, sorted; hidden ones are left out. Or the file."""
    if folder.is_file() and (image_kind if role == "images" else mask_kind)(folder) is not None:
        return [folder]
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except FileNotFoundError as error:
        raise PairingError(f"{role}: {folder} does not exist; give a folder or, for images, a CSV file.") from error
    except NotADirectoryError as error:
        raise PairingError(
            f"{role}: {folder} is a file; give a folder or, for images, a .csv file. If it is a file of annotations "
            "that was not recognised, say of which tool with --format."
        ) from error
    except OSError as error:
        raise PairingError(f"{role}: {folder} cannot be read ({error.strerror}).") from error
    files = [entry for entry in entries if entry.suffix.lower() in suffixes and entry.is_file()]
    files = sorted([*files, *scientific_files(folder, entries, role)])
    if files:
        return files
    kinds = Counter("folders" if entry.is_dir() else entry.suffix or "no suffix" for entry in entries)
    held = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5)) or "nothing"
    advice = " Files in folders below it are not searched; give one of these." if kinds["folders"] else ""
    advice += " Arrays are read with --channels." if kinds[".npy"] and ".npy" not in suffixes else ""
    raise PairingError(f"{role}: {folder} has no image files ({' '.join(suffixes)}); it holds {held}.{advice}")
