"""DICOM: the pictures of a series in the order in which they lie in the body."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convlora.data.extras import need
from convlora.data.pixels.decoding import require_allowed_size
from convlora.data.scientific.dicom_headers import (
    JPEG_2000,
    Instance,
    read_instances,
    refuse_endless_boxes,
    refuse_syntax,
)
from convlora.data.scientific.geometry import DicomGeometry
from convlora.data.scientific.stacks import reading, sampled
from convlora.data.settings import ImageLimits
from convlora.errors import ImageError


@dataclass(frozen=True)
class DicomSeries:
    """See `convlora.data.scientific.stacks.Stack`; equal to others of the same series. MONOCHROME1 is inverted within
    the bits that are stored, so that large values are bright.
    """

    path: Path
    """Folder of the series, or its only file."""
    series: str
    """SeriesInstanceUID."""
    part: int
    """Among the pictures of a series those of one size and direction; 0 if all are."""
    instances: tuple[Instance, ...] = field(compare=False, repr=False)
    size: tuple[int, int]
    channels: int
    dtype: str
    bits: int
    modality: str
    unit: str
    palette: None = None
    mask_problem: None = None

    @property
    def count(self) -> int:
        """Slices."""
        return len(self.instances)

    @property
    def rgb(self) -> tuple[int, int, int] | None:
        """Grey or RGB."""
        return (0, 0, 0) if self.channels == 1 else (0, 1, 2)

    def page(self, index: int, limits: ImageLimits) -> np.ndarray:
        """Values of one slice (H, W, C), rescaled as the file says: Hounsfield units of CT."""
        one = self.instances[index]
        require_allowed_size(one.path, *self.size, limits)
        pixels = need("pydicom.pixels", "medical", "reading DICOM")
        with reading(one.path, "DICOM"):
            refuse_syntax(one.path, one.syntax)
            if one.syntax in JPEG_2000:
                status = one.path.stat()
                refuse_endless_boxes(one.path, (status.st_mtime_ns, status.st_size))
            try:
                stored = pixels.pixel_array(str(one.path), index=one.frame)
            except RuntimeError as error:  # that is how it says that no decoder is there
                raise ImageError(
                    f"{one.path}: its compression cannot be decoded here ({_first_line(error)})"
                ) from error
            shape = self.size if self.channels == 1 else (*self.size, 3)
            if stored.shape != shape or stored.dtype.kind not in "iuf":
                raise ImageError(f"{one.path}: holds {stored.shape} values where {shape} were announced; damaged.")
            return self._meant(one, stored.reshape(*self.size, self.channels))

    def sample(self, limits: ImageLimits) -> np.ndarray:
        """Values of the whole (n, C)."""
        return sampled(self, limits)

    def in_hounsfield_units(self, limits: ImageLimits) -> bool:
        """Whether the modality is CT."""
        return self.modality == "CT" and self.channels == 1

    def geometry(self, index: int) -> DicomGeometry:
        """Where a slice lies."""
        places = tuple((one.path, one.frame) for one in self.instances)
        return DicomGeometry(self.path, self.series, index, self.count, places)

    def _meant(self, one: Instance, stored: np.ndarray) -> np.ndarray:
        if one.inverted:
            stored = -1 - stored if one.signed else np.array(2**one.bits - 1, stored.dtype) - stored
        dtype = np.dtype(self.dtype)
        if dtype.kind == "f":
            return (stored * np.float64(one.slope) + one.inter).astype(dtype)
        values = stored.astype(dtype)
        values += dtype.type(one.inter)
        return values


def find_series(path: Path, limits: ImageLimits) -> tuple[list[DicomSeries], list[str]]:
    """The series in a folder (not in those below it), or in a file; and what is left out, in words.

    Slices are sorted along the normal of the pictures (of axial ones: from the feet to the head), those without a
    position by their number. Pictures of one series that differ in size or direction, such as scouts, and each file of
    several frames, are series of their own.

    Raises:
        ImageError: A file is not readable, beyond the limits, or of a kind that cannot be read.
        SettingsError: pydicom is not installed.
    """
    instances, left_out = read_instances(path)
    groups: dict[tuple[Any, ...], list[Instance]] = {}
    for one in instances:
        require_allowed_size(one.path, one.height, one.width, limits)
        groups.setdefault(_group(one), []).append(one)
    found, parts = [], dict[str, int]()
    for key, members in sorted(groups.items(), key=lambda item: str(item[0])):
        uid = key[0]
        found.append(_series(path, uid, parts.get(uid, 0), _sorted(members)))
        parts[uid] = parts.get(uid, 0) + 1
    return found, left_out


def _group(one: Instance) -> tuple[Any, ...]:
    direction = tuple(round(value, 2) + 0.0 for value in one.direction) if one.direction else None
    own_file = str(one.path) if one.frames > 1 else ""
    return one.series, one.height, one.width, one.samples, direction, own_file


def _sorted(members: Sequence[Instance]) -> tuple[Instance, ...]:
    first = members[0]
    if first.direction is not None and all(one.position is not None for one in members):
        normal = np.cross(first.direction[:3], first.direction[3:])
        return tuple(sorted(members, key=lambda one: (round(float(np.dot(normal, one.position or ())), 4), one.order)))
    return tuple(sorted(members, key=lambda one: one.order))


def _series(path: Path, uid: str, part: int, instances: tuple[Instance, ...]) -> DicomSeries:
    first = instances[0]
    own = path if path.is_file() or first.frames == 1 else first.path
    single = len(instances) == 1 and first.frames == 1 and first.position is None
    lone = first.path if len(instances) == 1 and first.frames == 1 else own
    return DicomSeries(
        path=lone,
        series=uid,
        part=part,
        instances=instances,
        size=(first.height, first.width),
        channels=first.samples,
        dtype=_type(instances),
        bits=max(one.bits for one in instances),
        modality=first.modality,
        unit="" if single else "slice",
    )


def _type(instances: Iterable[Instance]) -> str:
    """A type that holds all values as they are meant."""
    low, high = 0.0, 0.0
    for one in instances:
        if one.floating or one.slope != 1 or not float(one.inter).is_integer():
            return "float32"
        least = -(2 ** (one.bits - 1)) if one.signed else 0
        low, high = min(low, least + one.inter), max(high, least + 2**one.bits - 1 + one.inter)
    for name in ("uint8", "uint16", "int16", "int32"):
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return name
    return "float64" if math.isfinite(low) else "float32"


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
