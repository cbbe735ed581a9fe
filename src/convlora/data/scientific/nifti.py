"""NIfTI volumes, as axial slices that lie as radiologists see them."""

from __future__ import annotations

import functools
import gzip
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convlora.data.extras import need
from convlora.data.pixels.decoding import require_allowed_size
from convlora.data.scientific.geometry import NiftiGeometry
from convlora.data.scientific.intensity import looks_like_ct
from convlora.data.scientific.stacks import MOST_SAMPLED, quiet, reading
from convlora.data.scientific.volume_cache import volumes
from convlora.data.settings import ImageLimits
from convlora.errors import ImageError

NIFTI_SUFFIXES = (".nii", ".nii.gz")
MOST_VOXELS = 8
"""A volume may have so many times the pixels that an image may have."""
_DEFLATE_MOST = 1032  # bytes that one byte of a gzip file can become
_HEADER_BYTES = 540  # of NIfTI-2, the longer one


@dataclass(frozen=True)
class NiftiVolume:
    """See `convlora.data.scientific.stacks.Stack`. Slices go from the feet to the head; in each, rows go from the front
    of the body to its back, and columns from its right to its left: the canonical orientation RAS, turned as
    radiologists look at it.
    """

    path: Path
    shape: tuple[int, int, int]
    """Of one volume in the file."""
    volumes: int
    """Volumes in the file, such as moments in time."""
    volume: int | None
    """The one that is read; None for all of them, as channels."""
    stored: str
    """Type of the values in the file, with its byte order."""
    offset: int = field(repr=False)
    """Of the values in the file, unpacked."""
    slope: float
    inter: float
    affine: tuple[tuple[float, float, float, float], ...] = field(repr=False)
    axes: tuple[int, int, int] = field(repr=False)
    backwards: tuple[bool, bool, bool] = field(repr=False)
    palette: None = None
    mask_problem: None = None
    unit: str = "slice"

    @property
    def count(self) -> int:
        """Axial slices."""
        return self.shape[self.axes[0]]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of an axial slice."""
        return self.shape[self.axes[1]], self.shape[self.axes[2]]

    @property
    def channels(self) -> int:
        """1, or the volumes if none is chosen."""
        return self.volumes if self.volume is None else 1

    @property
    def scaled(self) -> bool:
        """Whether the values in the file are to be multiplied and shifted."""
        return (self.slope, self.inter) != (1.0, 0.0)

    @property
    def dtype(self) -> str:
        """Type of the values that are meant; whole numbers stay so if they are shifted by a whole number."""
        stored = np.dtype(self.stored)
        if not self.scaled:
            return stored.newbyteorder("=").name
        whole = stored.kind in "iu" and stored.itemsize <= 2 and self.slope == 1 and self.inter.is_integer()
        return "int32" if whole and abs(self.inter) < 2**24 else "float32" if stored.itemsize <= 4 else "float64"

    @property
    def bits(self) -> int:
        """Those of the type."""
        return 8 * np.dtype(self.dtype).itemsize

    @property
    def rgb(self) -> tuple[int, int, int] | None:
        """Grey, or nothing."""
        return (0, 0, 0) if self.channels == 1 else None

    def page(self, index: int, limits: ImageLimits) -> np.ndarray:
        """Values of one slice (H, W, C)."""
        slices = [self.geometry(index).as_slices(volume)[index] for volume in self._arrays(limits)]
        return self._meant(np.stack(slices, axis=-1))

    def sample(self, limits: ImageLimits) -> np.ndarray:
        """Values (n, C) of all voxels, or of every n-th."""
        arrays = self._arrays(limits)
        step = max(1, math.ceil(math.prod(self.shape) / MOST_SAMPLED))
        step += step > 1 and step % 2 == 0  # an even step would see every other column of most volumes only
        return self._meant(np.stack([array.reshape(-1, order="F")[::step] for array in arrays], axis=-1))

    def in_hounsfield_units(self, limits: ImageLimits) -> bool:
        """Whether the values look like it: NIfTI does not say."""
        return self.channels == 1 and self.bits > 8 and looks_like_ct(self.sample(limits))

    def geometry(self, index: int) -> NiftiGeometry:
        """Where a slice lies in the file and in the body."""
        return NiftiGeometry(self.path, index, self.count, self.shape, self.affine, self.axes, self.backwards)

    def _meant(self, stored: np.ndarray) -> np.ndarray:
        values = stored.astype(stored.dtype.newbyteorder("="), copy=False)
        if not self.scaled:
            return values
        dtype = np.dtype(self.dtype)
        if dtype.kind == "i":
            shifted = values.astype(dtype)
            shifted += dtype.type(self.inter)
            return shifted
        return (values.astype(np.float64) * self.slope + self.inter).astype(dtype)

    def _arrays(self, limits: ImageLimits) -> list[np.ndarray]:
        """The volumes as they are stored, of `shape`."""
        numbers = range(self.volumes) if self.volume is None else [self.volume]
        with reading(self.path, "NIfTI"):
            status = self.path.stat()
            version = status.st_mtime_ns, status.st_size
            return [
                volumes.get((self.path, version, number, self.stored), functools.partial(self._load, number))
                for number in numbers
            ]

    def _load(self, number: int) -> np.ndarray:
        dtype, voxels = np.dtype(self.stored), math.prod(self.shape)
        size, start = voxels * dtype.itemsize, self.offset + number * voxels * dtype.itemsize
        if not _is_packed(self.path):
            if self.path.stat().st_size < start + size:
                raise _truncated(self.path)
            return np.memmap(self.path, dtype, "r", start, self.shape, order="F")
        content = np.empty(size, dtype=np.uint8)  # its pages take memory when they are filled
        room = memoryview(content)  # type: ignore[arg-type]
        with gzip.open(self.path) as stream:
            _skip(stream, start)
            filled = 0
            while filled < size:
                got = stream.readinto(room[filled : filled + (1 << 22)])
                if not got:
                    raise _truncated(self.path)
                filled += got
        return content.view(dtype).reshape(self.shape, order="F")


def open_nifti(path: Path, limits: ImageLimits, volume: int | None = None) -> NiftiVolume:
    """Read the header of a .nii or .nii.gz file.

    Args:
        path: The file.
        limits: Of each slice; the volume may have `MOST_VOXELS` times as many voxels.
        volume: Which one, if the file holds several; None takes all, as channels.

    Raises:
        ImageError: Not readable, beyond the limits, of values that are no real numbers, or there is no such volume.
        SettingsError: nibabel is not installed.
    """
    nibabel = need("nibabel", "medical", "reading NIfTI")
    quiet("nibabel")
    with reading(path, "NIfTI"):
        header = _header(path, nibabel)
        shape = tuple(int(length) for length in header.get_data_shape())
        if not 2 <= len(shape) <= 7 or min(shape) < 1:
            raise ImageError(f"{path}: a volume of {'x'.join(map(str, shape))} voxels cannot be read.")
        i, j, k = (*shape[:3], *(1,) * (3 - len(shape[:3])))
        count = math.prod(shape[3:])
        dtype = header.get_data_dtype()
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            raise ImageError(f"{path}: values of type {dtype} cannot be shown; save one real number a voxel.")
        if volume is not None and not 0 <= volume < count:
            raise ImageError(f"{path}: has no volume {volume} (--volume); it has {count}, numbered from 0.")
        _refuse_large(path, (i, j, k), count, dtype, int(header.get_data_offset()), limits)
        slope, inter = header.get_slope_inter()
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
        axes, backwards = _orientation(path, nibabel, affine)
        found = NiftiVolume(
            path=path,
            shape=(i, j, k),
            volumes=count,
            volume=0 if count == 1 else volume,
            stored=dtype.str,
            offset=int(header.get_data_offset()),
            slope=1.0 if slope is None else float(slope),
            inter=0.0 if inter is None else float(inter),
            affine=tuple(tuple(row) for row in affine.tolist()),
            axes=axes,
            backwards=backwards,
        )
        require_allowed_size(path, *found.size, limits)
        return found


def _header(path: Path, nibabel: Any) -> Any:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        content = gzip.GzipFile(fileobj=raw).read(_HEADER_BYTES) if packed else raw.read(_HEADER_BYTES)
    length = next((length for length in (348, 540) if content[:4] in (struct.pack(o + "i", length) for o in "<>")), 0)
    if not length or len(content) < length:
        raise ImageError(f"{path}: not a NIfTI file; its header is missing. Get the file again.")
    kind = nibabel.Nifti1Header if length == 348 else nibabel.Nifti2Header
    header = kind(content[:length], check=False)  # what matters of it is checked here
    magic = bytes(header["magic"].tobytes())
    if not magic.startswith((b"n+1", b"n+2")):
        raise ImageError(f"{path}: its voxels are in another file (.img), or it is no NIfTI; save it as one .nii file.")
    return header


def _refuse_large(
    path: Path, shape: tuple[int, ...], count: int, dtype: np.dtype[Any], offset: int, limits: ImageLimits
) -> None:
    """Refuse, before anything is unpacked, what is too large or what the file cannot hold."""
    voxels, most = math.prod(shape) * count, MOST_VOXELS * limits.max_pixels
    if voxels > most:
        raise ImageError(
            f"{path}: {'x'.join(map(str, shape))} voxels in {count} volumes are more than the {most / 1e6:g} million "
            "allowed; cut it up, or raise --max_megapixels."
        )
    size = path.stat().st_size
    if not 0 <= offset <= 1 << 24 or offset + voxels * dtype.itemsize > size * (
        _DEFLATE_MOST if _is_packed(path) else 1
    ):
        raise _truncated(path)


def _orientation(path: Path, nibabel: Any, affine: np.ndarray) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Axes of the file along slices, rows and columns, and whether these run against them."""
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise ImageError(f"{path}: its affine {affine[:3].tolist()} does not say where the voxels lie; mend it.")
    codes = nibabel.io_orientation(affine)  # of each axis of the file: the axis of RAS, and its direction
    if np.isnan(codes).any():
        raise ImageError(f"{path}: its affine does not say where the voxels lie; mend it.")
    place = {int(world): (axis, int(sign)) for axis, (world, sign) in enumerate(codes)}
    (columns, right), (rows, front), (slices, up) = place[0], place[1], place[2]
    # a canonical axis grows to the right, the front and the head; rows and columns of the picture go the other way
    return (slices, rows, columns), (up < 0, front > 0, right > 0)


def _is_packed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _skip(stream: gzip.GzipFile, count: int) -> None:
    while count > 0:
        got = len(stream.read(min(count, 1 << 22)))
        if not got:
            raise EOFError("the file ends before its voxels")
        count -= got


def _truncated(path: Path) -> ImageError:
    return ImageError(f"{path}: damaged; a part of its voxels is not in the file. Get the file again.")
