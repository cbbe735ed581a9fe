"""What in a folder is, beside plain pictures, an image or a mask; and which masks name their images themselves."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from convlora.data.samples import Sample, first_few, stem
from convlora.data.scientific.dicom import DicomSeries, find_series
from convlora.data.scientific.dicom_headers import dicom_files, read_instances
from convlora.data.scientific.dicom_seg import Segmentation, SegmentedSeries, read_segmentation, segmentation_classes
from convlora.data.scientific.expanding import mask_parts, slices
from convlora.data.scientific.kinds import is_vectors, volume_kind
from convlora.data.settings import ImageLimits
from convlora.errors import PairingError

_DEPTH = 5  # archives keep series below patients and studies
_ANY = ImageLimits(max_pixels=2**40)  # each picture is held against the user's limits when it is read


def scientific_files(folder: Path, entries: Sequence[Path], role: str) -> list[Path]:
    """The volumes among a folder's entries, and of masks outlines; a series of DICOM is one, as its folder.

    Args:
        folder: Where they are.
        entries: All that it holds.
        role: "images" or "masks".
    """
    kinds = {entry: volume_kind(entry) for entry in entries}
    found = [entry for entry, kind in kinds.items() if kind == "nifti" or (kind == "dicom" and entry.is_dir())]
    if role == "masks":
        found += [entry for entry in entries if is_vectors(entry)]
    if any(kind == "dicom" and not entry.is_dir() for entry, kind in kinds.items()):
        found += _dicom_in(folder, role)
    if not found and not any(entry.is_file() for entry in entries):
        found = _below(folder, _DEPTH)
    return found


def image_name(path: Path) -> str:
    """What pairs an image with its mask: a folder's name, or a file's without suffix."""
    return unicodedata.normalize("NFC", path.name) if path.is_dir() else stem(path)


def pairs_by_reference(images: Sequence[Path], masks: Sequence[Path]) -> list[Sample] | None:
    """DICOM images with the segmentations that refer to them, a sample each slice; None if no mask is one.

    Raises:
        PairingError: Images without a segmentation, segmentations without an image, or other masks beside them.
        ImageError: A file is not readable.
    """
    files = [file for mask in masks if volume_kind(mask) == "dicom" for file in dicom_files(mask)]
    drawn = [found for file in files if (found := read_segmentation(file)) is not None]
    if not drawn:
        return None
    if others := [mask for mask in masks if not any(mask in (one.path, one.path.parent) for one in drawn)]:
        raise PairingError(
            f"{first_few(others)}: masks of another kind beside DICOM-SEG; put them into another folder."
        )
    series = [one for image in images if volume_kind(image) == "dicom" for one in find_series(image, _ANY)[0]]
    by_series = defaultdict[str, list[Segmentation]](list)
    for drawing in drawn:
        for uid in drawing.series or ("",):
            by_series[uid].append(drawing)
    there = {one.series for one in series}
    lost = [drawing.path.name for drawing in drawn if not there & set(drawing.series or ("",))]
    bare = [str(one.path) for one in series if not by_series[one.series]]
    plain = [str(image) for image in images if volume_kind(image) != "dicom"]
    problems = {
        "segmentations of no series that is there": lost,
        "series without a segmentation": bare,
        "images that are not DICOM": plain,
    }
    if any(problems.values()):
        told = "; ".join(f"{len(items)} {what} ({first_few(items)})" for what, items in problems.items() if items)
        raise PairingError(f"{told}. DICOM-SEG belongs to the series that it refers to. Add or remove files.")
    classes = segmentation_classes(drawn)
    names = series_names(series)
    samples = []
    for one in series:
        stack = SegmentedSeries(one, tuple(by_series[one.series]), classes)
        samples += slices(names[one], Sample(names[one], one.path), one, mask_parts(stack))
    return sorted(samples, key=lambda sample: sample.name)


def series_names(series: Sequence[DicomSeries]) -> dict[DicomSeries, str]:
    """Different names of series: those of their folders or files, with a number if one holds several."""
    names = [image_name(one.path) for one in series]
    counts, seen = Counter(names), Counter[str]()
    found = {}
    for one, name in zip(series, names, strict=True):
        seen[name] += 1
        found[one] = name if counts[name] == 1 else f"{name}-{seen[name]}"
    return found


def _dicom_in(folder: Path, role: str) -> list[Path]:
    """Of DICOM files directly in a folder: each, or the folder if several make one series."""
    files = dicom_files(folder)
    if role == "masks" and any(read_segmentation(file) is not None for file in files):
        return files
    instances, _ = read_instances(folder)
    one_each = len({one.series for one in instances if one.series} or {0}) == len({one.path for one in instances})
    return sorted({one.path for one in instances}) if one_each else [folder]


def _below(folder: Path, depth: int) -> list[Path]:
    """Folders of DICOM files anywhere below one."""
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or not entry.is_dir() or entry.is_symlink():
            continue
        found += [entry] if volume_kind(entry) == "dicom" else _below(entry, depth - 1) if depth > 1 else []
    return found
