"""Files that appear whole or not at all, and hashes to recognise them by."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convlora.errors import OutputError

_UMASK_LOCK = threading.Lock()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success flush it to disk and rename it to `path`.

    A reader sees the old file or the new one, never a part. On any error the temporary file is removed and the
    old file stays.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # a part of the name, because the whole one may be as long as the file system takes
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o666 & ~_umask())  # mkstemp makes 0600; a result should be readable like any other file
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    with _UMASK_LOCK:  # it can only be read by changing it: two threads at once would leave it changed
        umask = os.umask(0)
        os.umask(umask)
    return umask


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a hidden sibling of the folder `path`; on success flush all files in it to disk and rename it to `path`.

    A folder that is there already is replaced. On any error the hidden one is removed and the old one stays.

    Raises:
        OutputError: as `replacing`.
    """
    hidden = path.with_name(f".{path.name}.tmp")
    with output_errors(path):
        shutil.rmtree(hidden, ignore_errors=True)
        hidden.mkdir(parents=True)
        try:
            yield hidden
            for file in hidden.rglob("*"):
                fsync(file)
            if path.exists():
                shutil.rmtree(path)
            hidden.rename(path)
            fsync(path.parent)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into an `OutputError` that says what to do."""
    try:
        yield
    except Exception as error:
        # safetensors reports the system's refusals in words only
        in_words = re.search(r"\(os error (\d+)\)", str(error))
        places = map(str, (path, path.with_name(f".{path.name}.tmp"), *path.parents))
        if isinstance(error, FileNotFoundError) and str(error.filename) not in places:
            raise  # of a file that was to be read meanwhile
        number = error.errno if isinstance(error, OSError) else int(in_words[1]) if in_words else None
        remedies = {
            errno.ENOSPC: "the disk is full; free some space, then go on",
            errno.EDQUOT: "the disk quota is used up; free some space, then go on",
            errno.EROFS: "the file system is read-only; choose another output folder",
            errno.EACCES: "permission denied; choose a folder that you may write to",
            errno.EPERM: "permission denied; choose a folder that you may write to",
            errno.ENOTDIR: "a part of the path is a file, not a folder; choose another output folder",
            errno.ENOENT: "its folder is not there, and none can be made; choose another output folder",
            errno.EEXIST: "there is a file, not a folder, of that name; choose another output folder",
            errno.EISDIR: "there is a folder of that name; remove it, or choose another output folder",
            errno.ENAMETOOLONG: "the name is too long for this file system; shorten it",
            errno.EFBIG: "the file would be larger than is allowed here; raise the limit, or choose another folder",
            errno.EIO: "the disk reported an error; choose another output folder",
        }
        if number not in remedies:
            raise
        raise OutputError(f"cannot write {path}: {remedies[number]}.") from error


def fsync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; infinities and NaN are refused because no other reader takes them."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def append_json_line(path: Path, entry: dict[str, Any]) -> None:
    """Add one line to a file of JSON lines; numbers that are not finite become null."""
    with output_errors(path), path.open("a", encoding="utf-8") as stream:
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()}
        stream.write(json.dumps(finite, allow_nan=False) + "\n")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a file; a line torn by a kill is left out, and a file that is not there has none."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    return entries


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
