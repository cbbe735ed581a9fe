"""Find out in which format a data set comes, and read it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from convlora.data.readers.found import FoundData
from convlora.data.settings import FORMATS, DataSettings
from convlora.errors import SettingsError

_SILENT = ("folders", "csv")  # what the documentation shows first; all others are named in a note
_MODULES = {"folders": "paired", "csv": "table"}  # where the module is not named like its format


def find_data(settings: DataSettings) -> FoundData:
    """The samples of a data set of any format.

    A reader is a module of this package with `recognise(images, masks)`, which looks at names (and, of annotation
    files, at their first keys) and returns the reason in words or None, and `read(settings)`.

    Raises:
        SettingsError: Several formats are possible, or settings contradict each other.
        DataError: The files cannot be used; the message says which and why.
    """
    if settings.format != "auto":
        return _reader(settings.format).read(settings)
    images, masks = Path(settings.images), Path(settings.masks) if settings.masks is not None else None
    reasons = {name: reason for name in FORMATS[1:] if (reason := _reader(name).recognise(images, masks))}
    if len(reasons) > 1:
        found = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise SettingsError(f"{settings.images} may be of several formats ({found}). Say which with --format.")
    for name, reason in reasons.items():
        found_data = _reader(name).read(settings)
        if name not in _SILENT:
            found_data.notes.insert(0, f"read as {name}: {reason} (--format {name})")
        return found_data
    return _reader("folders").read(settings)  # whose errors say what is missing


def _reader(name: str):  # type: ignore[no-untyped-def]  # a module
    return import_module(f"convlora.data.readers.{_MODULES.get(name, name.replace('-', '_'))}")
