"""Annotation files in JSON: recognised without parsing them, parsed once, refused in one line."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from convlora.data.readers.image_files import folders_in
from convlora.errors import DataError

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LONGEST = 4096  # characters of a name; a path may have as many
_MOST_FILES = 64  # a folder of more of them holds one for each image


def read_json(path: Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Parse a file in UTF-8.

    Args:
        path: The file.
        hook: Called with each object as soon as it is read; what it returns takes its place, which spares memory.

    Raises:
        DataError: It cannot be opened, or is not JSON.
    """
    try:
        return json.loads(path.read_bytes(), object_hook=hook)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}).") from error
    except RecursionError as error:
        raise DataError(f"{path}: JSON that is nested too deeply for annotations. Export it again.") from error
    except ValueError as error:  # also of text that is not Unicode, and of numbers with thousands of digits
        raise DataError(f"{path}: not a whole JSON file ({error}). Export it again.") from error


def shown(value: object) -> str:
    """Whatever a file holds, for a message: short and in one line."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:36]} …"


def is_name(value: object) -> bool:
    """Whether it is text that can be a name: not empty, in one line, not a book, and of characters that can be
    printed."""
    return isinstance(value, str) and 0 < len(value.strip()) <= _LONGEST and not _UNPRINTABLE.search(value.strip())


def looks_like(path: Path, opening: str, keys: Sequence[str]) -> bool:
    """Whether a file begins with this bracket and has all these keys somewhere; without parsing it.

    A file of 100 MB takes 60 ms; one that begins otherwise takes none.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
            if not start.startswith(opening.encode()):
                return False
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
                return all(text.find(f'"{key}"'.encode()) >= 0 for key in keys)
    except (OSError, ValueError):  # not readable; which of them, reading it tells
        return False


def json_files(images: Path, masks: Path | None) -> list[Path]:
    """Where one annotation file for many images may be: what is given, or in the folder given and those in it."""
    given = masks if masks is not None else images
    if given.is_file():
        return [given] if given.suffix.lower() == ".json" else []
    found: list[Path] = []
    for folder in [given, *(folders_in(images) if masks is None else [])]:
        files = [file for file in folder.glob("*.[jJ][sS][oO][nN]") if file.is_file() and file.name[0] != "."]
        found += sorted(files) if len(files) <= _MOST_FILES else []
    return found


def images_root(images: Path) -> Path:
    """The folder that the images are below, if `images` may be an annotation file too."""
    if not images.is_file():
        return images
    return images.parent.parent if images.parent.name == "annotations" else images.parent
