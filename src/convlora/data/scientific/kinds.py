"""Which kind of scientific image a path is, by its name and first bytes."""

from __future__ import annotations

from pathlib import Path

from convlora.data.scientific.deep_png import is_deep_png
from convlora.data.scientific.dicom_headers import is_dicom
from convlora.data.scientific.nifti import NIFTI_SUFFIXES
from convlora.data.scientific.tiff_tags import tiff_kind
from convlora.data.scientific.vectors import VECTOR_SUFFIXES

_TIFF_SUFFIXES = (".tif", ".tiff")
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


def volume_kind(path: Path) -> str | None:
    """nifti or dicom, of a file or of a folder that directly holds DICOM files; None for all else."""
    name = path.name.lower()
    if path.is_dir():
        return "dicom" if _holds_dicom(path) else None
    if name.endswith(NIFTI_SUFFIXES):
        return "nifti"
    if name.endswith(_DICOM_SUFFIXES) or (path.suffix.lower() not in _KNOWN and path.is_file() and is_dicom(path)):
        return "dicom"
    return None


def image_kind(path: Path) -> str | None:
    """nifti, dicom, geotiff, tiff or png (16-bit grey); None for pictures that are read as ever."""
    if path.suffix.lower() == ".png":
        return "png" if is_deep_png(path) else None
    if path.name.lower().endswith(_TIFF_SUFFIXES) and path.is_file():
        kind = tiff_kind(path)
        return None if kind is None or kind.plain else "geotiff" if kind.geo else "tiff"
    return volume_kind(path)


def mask_kind(path: Path) -> str | None:
    """As `image_kind`, or vectors; None for masks that are read as ever."""
    if path.name.lower().endswith(_TIFF_SUFFIXES) and path.is_file():
        kind = tiff_kind(path)
        return None if kind is None or kind.ids else "geotiff" if kind.geo else "tiff"
    return "vectors" if is_vectors(path) else volume_kind(path)


def is_vectors(path: Path) -> bool:
    """Whether a file holds outlines on earth, by its suffix."""
    return path.suffix.lower() in VECTOR_SUFFIXES and path.is_file()


_KNOWN = {
    ".csv",
    ".gif",
    ".json",
    ".jpg",
    ".jpeg",
    ".png",
    ".tif",
    ".tiff",
    ".bmp",
    ".webp",
    ".npy",
    ".txt",
    ".xml",
} | {
    ".yaml",
    ".yml",
    ".zip",
    ".gz",
    ".md",
    ".py",
    *VECTOR_SUFFIXES,
}


def _holds_dicom(folder: Path) -> bool:
    """Whether one of the first files is DICOM."""
    try:
        files = sorted(entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_file())
    except OSError:
        return False
    return any(file.suffix.lower() not in _KNOWN and is_dicom(file) for file in files[:8])
