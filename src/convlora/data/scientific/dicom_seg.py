"""DICOM segmentations as masks of the series that they were drawn on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convlora.data.extras import need
from convlora.data.samples import first_few
from convlora.data.scientific.dicom import DicomSeries
from convlora.data.scientific.dicom_headers import SEGMENTATION, read_header
from convlora.data.scientific.geometry import DicomGeometry
from convlora.data.scientific.stacks import reading, sampled
from convlora.data.scientific.volume_cache import volumes
from convlora.data.settings import ImageLimits
from convlora.errors import ImageError, MaskError

_MOST_FRAMES = 200_000
_NEAR = 0.01  # millimetres between positions that are the same
_TAGS = ["SOPClassUID", "SegmentSequence", "ReferencedSeriesSequence", "SeriesInstanceUID", "Rows", "Columns"]


@dataclass(frozen=True)
class Segmentation:
    """What the header of a DICOM-SEG file says."""

    path: Path
    segments: tuple[tuple[int, str], ...]
    """Number and label of each."""
    series: tuple[str, ...]
    """SeriesInstanceUID of the series that it refers to."""


def read_segmentation(path: Path) -> Segmentation | None:
    """The header of a DICOM-SEG file; None if it is another kind of DICOM.

    Raises:
        ImageError: Not readable.
        MaskError: Its segments have no numbers or labels, or the same twice.
    """
    header = read_header(path, _TAGS)
    with reading(path, "DICOM-SEG"):
        if str(header.get("SOPClassUID", "")) not in SEGMENTATION:
            return None
        segments = tuple(
            (int(item.SegmentNumber), str(item.get("SegmentLabel") or f"segment {item.SegmentNumber}").strip())
            for item in header.get("SegmentSequence") or ()
            if int(item.SegmentNumber) != 0  # that of a label map's background
        )
        if (
            not segments
            or len({n for n, _ in segments}) < len(segments)
            or len({t for _, t in segments}) < len(segments)
        ):
            raise MaskError(f"{path}: its segments are not numbered and labelled once each; export it again.")
        series = tuple(str(item.get("SeriesInstanceUID", "")) for item in header.get("ReferencedSeriesSequence") or ())
        return Segmentation(path, segments, series)


@dataclass(frozen=True)
class SegmentedSeries:
    """The segments of one or several files as one mask a slice of a series; see
    `convlora.data.scientific.stacks.Stack`. Slices that no frame refers to are background.
    """

    image: DicomSeries
    files: tuple[Segmentation, ...]
    classes: tuple[str, ...] = field(repr=False)
    """Names by class id, the background first."""
    dtype: str = "uint8"
    bits: int = 8
    channels: int = 1
    palette: None = None
    mask_problem: None = None
    rgb: tuple[int, int, int] = (0, 0, 0)
    unit: str = "slice"

    @property
    def path(self) -> Path:
        """The first file."""
        return self.files[0].path

    @property
    def count(self) -> int:
        """Slices of the series."""
        return self.image.count

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the series."""
        return self.image.size

    def page(self, index: int, limits: ImageLimits) -> np.ndarray:
        """Class ids of one slice (H, W, 1).

        Raises:
            MaskError: Frames refer to no slice, or segments overlap.
        """
        versions = tuple((str(one.path), one.path.stat().st_mtime_ns) for one in self.files)
        return volumes.get((versions, self.image, self.classes), self._draw)[index, ..., None]

    def sample(self, limits: ImageLimits) -> np.ndarray:
        """Class ids of the whole (n, 1)."""
        return sampled(self, limits)

    def in_hounsfield_units(self, limits: ImageLimits) -> bool:
        """No."""
        return False

    def geometry(self, index: int) -> DicomGeometry:
        """That of the series."""
        return self.image.geometry(index)

    def _draw(self) -> np.ndarray:
        drawn = np.zeros((self.count, *self.size), dtype=np.uint8)
        ids = {name: number for number, name in enumerate(self.classes)}
        for file in self.files:
            with reading(file.path, "DICOM-SEG"):
                _draw_file(file, drawn, self.image, {number: ids[label] for number, label in file.segments})
        return drawn


def segmentation_classes(files: Sequence[Segmentation]) -> tuple[str, ...]:
    """Names by class id: the background, and the labels of all segments in the order of their numbers.

    Raises:
        MaskError: More than 254.
    """
    numbers: dict[str, int] = {}
    for file in files:
        for number, label in file.segments:
            numbers[label] = min(number, numbers.get(label, number))
    labels = sorted(numbers, key=lambda label: (numbers[label], label))
    if len(labels) > 254:
        raise MaskError(f"{files[0].path}: {len(labels)} segments of different labels are more than 254 classes.")
    return ("background", *(label for label in labels if label != "background"))


def _draw_file(file: Segmentation, drawn: np.ndarray, image: DicomSeries, ids: Mapping[int, int]) -> None:
    header = read_header(file.path, None, pixels=True)
    frames = int(header.get("NumberOfFrames") or 1)
    each = header.get("PerFrameFunctionalGroupsSequence") or []
    kind = str(header.get("SegmentationType", "BINARY"))
    if (int(header.Rows), int(header.Columns)) != drawn.shape[1:]:
        raise MaskError(
            f"{file.path}: frames of {header.Rows} x {header.Columns} pixels do not lie on slices of "
            f"{drawn.shape[1]} x {drawn.shape[2]} of {image.path}; export it in the geometry of the series."
        )
    if not 1 <= frames <= _MOST_FRAMES or len(each) != frames or int(header.get("SamplesPerPixel", 1)) != 1:
        raise ImageError(f"{file.path}: has {frames} frames and describes {len(each)}; export it again.")
    shared = header.get("SharedFunctionalGroupsSequence")
    known = {(one.uid, one.frame): number for number, one in enumerate(image.instances) if one.uid}
    places = [_slice(file.path, image, known, item, shared[0] if shared else {}) for item in each]
    pixels = _frames(header, frames)
    overlap = 0
    for item, place, frame in zip(each, places, pixels, strict=True):
        target = drawn[place]
        if kind == "LABELMAP":
            values = np.zeros(target.shape, dtype=np.uint8)
            for number, class_id in ids.items():
                values[frame == number] = class_id
            inside = frame > 0
        else:
            inside = frame >= int(header.get("MaximumFractionalValue", 1)) / 2 if kind == "FRACTIONAL" else frame > 0
            values = np.full(target.shape, ids[_number(file.path, item, shared, ids)], dtype=np.uint8)
        overlap += int(np.count_nonzero(inside & (target != 0) & (target != values)))
        np.copyto(target, values, where=inside)
    if overlap:
        raise MaskError(
            f"{file.path}: segments overlap in {overlap} pixels, so their class is not sure. Export segments that "
            "exclude each other, or each into a folder of its own."
        )


def _frames(header: Any, count: int) -> Iterator[np.ndarray]:
    """The frames (H, W). Single bits are packed across frames, where pydicom loses its place inside of a byte."""
    height, width = int(header.Rows), int(header.Columns)
    pixels = height * width
    if int(header.BitsAllocated) != 1 or pixels % 8 == 0 or header.file_meta.TransferSyntaxUID.is_encapsulated:
        yield from need("pydicom.pixels", "medical", "reading DICOM-SEG").iter_pixels(header, raw=True)
        return
    packed = np.frombuffer(header.PixelData, dtype=np.uint8)
    if len(packed) * 8 < count * pixels:
        raise ValueError(f"{len(packed)} bytes for {count} frames of {height} x {width} bits")
    for first in range(0, count * pixels, pixels):
        bits = np.unpackbits(packed[first // 8 : (first + pixels + 7) // 8], bitorder="little")
        yield bits[first % 8 : first % 8 + pixels].reshape(height, width)


def _number(path: Path, item: Any, shared: Any, ids: Mapping[int, int]) -> int:
    """The segment that a frame is of."""
    for group in (item, shared[0] if shared else {}):
        named = group.get("SegmentIdentificationSequence")
        if named and int(named[0].ReferencedSegmentNumber) in ids:
            return int(named[0].ReferencedSegmentNumber)
    raise MaskError(f"{path}: a frame does not say which segment it is of; export it again.")


def _slice(path: Path, image: DicomSeries, known: Mapping[tuple[str, int], int], item: Any, shared: Any) -> int:
    """The slice that a frame lies on: the one it refers to, or the one at its position."""
    for source in _sources(item):
        uid, frames = str(source.get("ReferencedSOPInstanceUID", "")), source.get("ReferencedFrameNumber")
        frame = int(frames[0] if hasattr(frames, "__len__") else frames) - 1 if frames is not None else 0
        if (uid, frame) in known:
            return known[uid, frame]
    planes = item.get("PlanePositionSequence") or shared.get("PlanePositionSequence")
    if planes:
        position = np.asarray([float(value) for value in planes[0].ImagePositionPatient])
        for number, one in enumerate(image.instances):
            if one.position is not None and np.abs(position - one.position).max() < _NEAR:
                return number
    wanted = first_few(str(source.get("ReferencedSOPInstanceUID", "")) for source in _sources(item)) or "none at all"
    raise MaskError(f"{path}: a frame refers to no slice of {image.path} (to {wanted}); it belongs to another series.")


def _sources(item: Any) -> list[Any]:
    derived = item.get("DerivationImageSequence") or []
    return [source for one in derived for source in one.get("SourceImageSequence") or []]
