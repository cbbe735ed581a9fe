"""What the headers of DICOM files say about their pictures, without the pixels."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convlora.data.extras import need
from convlora.data.scientific.stacks import quiet, reading
from convlora.errors import ImageError

_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1")  # a whole file, or its pixels, of unbounded size
_MOST_FRAMES = 100_000
JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
_JP2 = b"\0\0\0\x0cjP  "  # the first box of a JPEG 2000 file, as which a frame may be stored
SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "InstanceNumber",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]


@dataclass(frozen=True)
class Instance:
    """One picture: an image, or a frame of it."""

    path: Path
    frame: int
    """From 0."""
    frames: int
    """Of the file."""
    uid: str
    """SOPInstanceUID."""
    series: str
    modality: str
    order: tuple[int, str, int]
    """Number in its series, name of the file, and frame, which decide where positions do not."""
    height: int
    width: int
    samples: int
    bits: int
    """Stored."""
    signed: bool
    floating: bool
    inverted: bool
    slope: float
    inter: float
    position: tuple[float, float, float] | None
    """Of the centre of the first pixel, millimetres in LPS."""
    direction: tuple[float, ...] | None
    """Direction cosines of a row, and of a column."""
    spacing: tuple[float, float] | None
    """Millimetres between rows, and between columns."""
    syntax: str
    """Transfer syntax."""


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def dicom_files(path: Path) -> list[Path]:
    """The DICOM files directly in a folder, sorted, whatever their suffix; or the file itself."""
    if path.is_file():
        return [path]
    files = (entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".") and entry.is_file())
    return [file for file in files if file.name != "DICOMDIR" and is_dicom(file)]


def read_header(path: Path, tags: list[str] | None, *, pixels: bool = False) -> Any:
    """A data set of pydicom; `tags` are those that are wanted, None all.

    Raises:
        ImageError: Not readable, or of a kind that unpacks to anything.
        SettingsError: pydicom is not installed.
    """
    pydicom = need("pydicom", "medical", "reading DICOM")
    quiet("pydicom")
    with reading(path, "DICOM"):
        meta = need("pydicom.filereader", "medical", "reading DICOM").read_file_meta_info(path)
        refuse_syntax(path, str(meta.get("TransferSyntaxUID", "")))
        found = pydicom.dcmread(path, stop_before_pixels=not pixels, specific_tags=tags)
        found.file_meta = meta
        return found


def refuse_syntax(path: Path, syntax: str) -> None:
    """Refuse files that are packed as a whole, of which nothing says how large they become."""
    if syntax in _DEFLATED:
        raise ImageError(f"{path}: is deflated, which is not read; convert it (dcmconv +te, or gdcmconv --raw).")
    if not syntax:
        raise ImageError(f"{path}: does not say how it is encoded (TransferSyntaxUID); export it again.")


@functools.lru_cache(maxsize=4096)
def refuse_endless_boxes(path: Path, version: object) -> None:
    """Refuse pictures in boxes of no length, along which pydicom 3.0 would walk for ever.

    Args:
        path: A file of JPEG 2000 pictures.
        version: Changes if the file does.

    Raises:
        ImageError: There is one.
    """
    header = read_header(path, ["NumberOfFrames", "PixelData"], pixels=True)
    frames = int(header.get("NumberOfFrames") or 1)
    encaps = need("pydicom.encaps", "medical", "reading DICOM")
    for picture in encaps.generate_frames(header.PixelData, number_of_frames=frames):
        place = 12 if picture.startswith(_JP2) else len(picture)
        while place < len(picture) and picture[place + 4 : place + 8] != b"jp2c":
            length = int.from_bytes(picture[place : place + 4], "big")
            if length < 8:
                raise ImageError(f"{path}: damaged; a box of its JPEG 2000 picture has no length. Get it again.")
            place += length


def read_instances(path: Path) -> tuple[list[Instance], list[str]]:
    """The pictures in a folder or file, and what else is there, in words.

    Raises:
        ImageError: As `read_header`; or there is no picture.
    """
    found: list[Instance] = []
    others: Counter[str] = Counter()
    for file in dicom_files(path):
        header = read_header(file, _TAGS)
        with reading(file, "DICOM"):
            if header.get("SOPClassUID") in SEGMENTATION or not header.get("Rows"):
                others[str(header.get("Modality") or "unknown kind")] += 1
            else:
                found += _instances(file, header)
    if not found:
        held = ", ".join(f"{count} of {kind}" for kind, count in others.items()) or "no DICOM"
        raise ImageError(f"{path}: holds no DICOM images ({held}).")
    return found, [f"{path}: {count} DICOM files of {kind} are no images" for kind, count in others.items()]


def _instances(path: Path, header: Any) -> Iterator[Instance]:
    frames = int(header.get("NumberOfFrames") or 1)
    photometric, samples = str(header.get("PhotometricInterpretation", "")), int(header.get("SamplesPerPixel", 1))
    allocated, stored = int(header.BitsAllocated), int(header.get("BitsStored") or header.BitsAllocated)
    _refuse_kind(path, header, photometric, samples, allocated, stored, frames)
    shared = _groups(header.get("SharedFunctionalGroupsSequence"), 0)
    each = header.get("PerFrameFunctionalGroupsSequence")
    if each is not None and len(each) != frames:
        raise ImageError(f"{path}: describes {len(each)} of its {frames} frames; export it again.")
    for frame in range(frames):
        groups = [_groups(each, frame), shared]
        slope, inter = _rescale(path, header, groups)
        yield Instance(
            path=path,
            frame=frame,
            frames=frames,
            uid=str(header.get("SOPInstanceUID", "")),
            series=str(header.get("SeriesInstanceUID", "")),
            modality=str(header.get("Modality", "")),
            order=(int(header.get("InstanceNumber") or 0), path.name, frame),
            height=int(header.Rows),
            width=int(header.Columns),
            samples=samples,
            bits=stored,
            signed=int(header.get("PixelRepresentation") or 0) == 1,
            floating=allocated > 32 or "PixelRepresentation" not in header,
            inverted=photometric == "MONOCHROME1",
            slope=slope,
            inter=inter,
            position=_numbers(path, header, groups, "PlanePositionSequence", "ImagePositionPatient", 3),  # type: ignore[arg-type]
            direction=_numbers(path, header, groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6),
            spacing=_numbers(path, header, groups, "PixelMeasuresSequence", "PixelSpacing", 2),  # type: ignore[arg-type]
            syntax=str(header.file_meta.TransferSyntaxUID),
        )


def _refuse_kind(
    path: Path, header: Any, photometric: str, samples: int, allocated: int, stored: int, frames: int
) -> None:
    grey = samples == 1 and photometric in ("MONOCHROME1", "MONOCHROME2")
    colour = (
        samples == 3
        and allocated == 8
        and photometric in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420")
    )
    if not (grey or colour):
        raise ImageError(
            f"{path}: {samples} samples of {allocated} bits in {photometric or 'no colours'} cannot be read; "
            "grey and 8-bit RGB can."
        )
    if allocated not in (8, 16, 32, 64) or not 1 <= stored <= allocated:
        raise ImageError(f"{path}: {stored} bits stored in {allocated} cannot be read.")
    high = header.get("HighBit")
    if high is not None and int(high) != stored - 1 and not header.file_meta.TransferSyntaxUID.is_encapsulated:
        raise ImageError(
            f"{path}: the {stored} bits of its values end at bit {high} (HighBit), which is not read; convert it."
        )
    if not 1 <= frames <= _MOST_FRAMES:
        raise ImageError(f"{path}: {frames} frames are not 1 to {_MOST_FRAMES}.")
    if header.get("ModalityLUTSequence"):
        raise ImageError(f"{path}: maps its values by a table (Modality LUT), which is not read; export it rescaled.")


def _groups(sequence: Any, index: int) -> Any:
    return sequence[index] if sequence else {}


def _nested(groups: list[Any], sequence: str, name: str) -> Any:
    """A value of the functional groups, of the frame's own first."""
    for group in groups:
        items = group.get(sequence)
        if items and items[0].get(name) is not None:
            return items[0].get(name)
    return None


def _rescale(path: Path, header: Any, groups: list[Any]) -> tuple[float, float]:
    names = ("RescaleSlope", "RescaleIntercept")
    values = [_nested(groups, "PixelValueTransformationSequence", name) for name in names]
    values = [header.get(name) if value is None else value for name, value in zip(names, values, strict=True)]
    slope, inter = (default if value is None else float(value) for value, default in zip(values, (1, 0), strict=True))
    if not (math.isfinite(slope) and math.isfinite(inter) and slope != 0):
        raise ImageError(f"{path}: its values are to be rescaled by {slope} and {inter}; mend the header.")
    return float(slope), float(inter)


def _numbers(
    path: Path, header: Any, groups: list[Any], sequence: str, name: str, count: int
) -> tuple[float, ...] | None:
    """Finite numbers of the functional groups, or of the header; None if they are not given."""
    value = _nested(groups, sequence, name)
    value = header.get(name) if value is None else value
    if value is None or (hasattr(value, "__len__") and not len(value)):
        return None
    numbers = tuple(float(number) for number in value)
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ImageError(f"{path}: {name} is not {count} numbers; mend the header.")
    return numbers
