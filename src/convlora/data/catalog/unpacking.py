"""Unpack a zip archive that may be hostile: every name, kind and size is looked at before a byte is written."""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from convlora.data.catalog.fetching import Progress
from convlora.data.samples import first_few
from convlora.errors import DataError


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may unpack to."""

    files: int = 200_000
    """Number of files."""
    bytes: int = 200_000_000_000
    """Size of all files together."""
    ratio: float = 100.0
    """Size of all files divided by that of the archive; images hardly shrink, a bomb is all air."""


DEFAULT_ARCHIVE_LIMITS = ArchiveLimits()
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, UnicodeDecodeError)


@contextmanager
def opened_archive(path: Path, limits: ArchiveLimits) -> Iterator[zipfile.ZipFile]:
    """Yield an archive in which every member may be unpacked.

    Raises:
        DataError: It is missing, no zip archive or damaged; or a member is a link or another thing that is no file, is
            encrypted, twice there, both file and folder, named so that it would lie outside the folder; or they are
            too many or too large.
    """
    if not path.is_file():
        raise DataError(
            f"{path} is a folder; give the zip archive itself."
            if path.is_dir()
            else f"{path} does not exist; give the archive's file."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            problem = _problem(archive, path.stat().st_size, limits)
            if problem:
                raise DataError(f"{path}: {problem}. Nothing was unpacked; get the archive from its source again.")
            yield archive
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's; bz2's own has no number
            raise
        raise DataError(
            f"{path}: not a zip archive, damaged or cut short ({error or type(error).__name__}). Get it again."
        ) from error


def unpack(archive: zipfile.ZipFile, root: PurePosixPath, folder: Path, progress: Progress) -> None:
    """Write the files below `root` in the archive into `folder`; what the Finder adds is left out.

    Args:
        archive: As `opened_archive` yields it.
        root: Folder in it; what lies beside it is left out.
        folder: There already.
        progress: Called with bytes.
    """
    members = [(info, path) for info, path in _files(archive) if path.is_relative_to(root)]
    total = sum(info.file_size for info, _ in members)
    done = 0
    for info, path in members:
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, target.open("wb") as stream:  # stops at the size that was looked at
            shutil.copyfileobj(source, stream, 1 << 20)
        done += info.file_size
        progress(done, total)


def folder_of(archive: zipfile.ZipFile, *parts: str) -> PurePosixPath | None:
    """The folder in the archive that holds a file of this path, or a file below it; the topmost one, None if none."""
    wanted = tuple(parts)
    found = []
    for _, path in _files(archive):
        for i in range(len(path.parts) - len(wanted) + 1):
            if path.parts[i : i + len(wanted)] == wanted:
                found.append(PurePosixPath(*path.parts[:i]))
    return min(found, key=lambda path: (len(path.parts), path), default=None)


def _files(archive: zipfile.ZipFile) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The members that are files, with their paths."""
    files = [(info, PurePosixPath(info.filename)) for info in archive.infolist() if not info.is_dir()]
    return [(info, path) for info, path in files if "__MACOSX" not in path.parts and path.name != ".DS_Store"]


def _problem(archive: zipfile.ZipFile, size: int, limits: ArchiveLimits) -> str | None:
    members = archive.infolist()
    total = sum(info.file_size for info in members)
    found = {
        "are named so that they would lie outside the folder": [
            repr(info.orig_filename) for info in members if _escapes(info.orig_filename)
        ],
        "are links or other things that are no files": [info.filename for info in members if _is_special(info)],
        "are encrypted": [info.filename for info in members if info.flag_bits & 0x1],
        "are there twice, or as file and as folder": _clashes(archive),
    }
    for what, bad in found.items():
        if bad:
            return f"{len(bad)} of {len(members)} members {what}: {first_few(bad)}"
    if len(members) > limits.files:
        return f"{len(members)} members, more than the {limits.files} allowed"
    if total > limits.bytes or total > limits.ratio * size:
        return (
            f"{size / 1e6:.3g} MB would unpack to {total / 1e6:.3g} MB, more than {limits.bytes / 1e9:g} GB or than "
            f"{limits.ratio:g} times its size"
        )
    return None


def _clashes(archive: zipfile.ZipFile) -> list[str]:
    """The files that another one would replace, or needs as a folder; `a/.` counts as `a`."""
    parts = sorted(path.parts for _, path in _files(archive))  # what lies below a path follows it at once
    return ["/".join(this) or "." for this, following in pairwise(parts) if following[: len(this)] == this]


def _escapes(name: str) -> bool:
    """Whether a member's name is anything but a plain relative path."""
    odd = not name or name.startswith("/") or re.search(r"\\|\0|^[A-Za-z]:", name)
    return bool(odd) or ".." in name.split("/")


def _is_special(info: zipfile.ZipInfo) -> bool:
    """Whether the member is neither a file nor a folder; archives made without Unix modes have mode 0."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    return kind not in (0, stat.S_IFREG, stat.S_IFDIR)
