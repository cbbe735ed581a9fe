"""Find out in which format a data set comes, and read it."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path

from convlora.data.readers.coloured import in_colours
from convlora.data.readers.found import FoundData
from convlora.data.readers.multilabel import with_channels
from convlora.data.readers.pictures import in_pictures
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
    found = in_pictures(_find(settings), settings)
    if settings.mask_format == "colours":
        found = dataclasses.replace(in_colours(found, settings), intensity=found.intensity)
    return with_channels(found, settings) if settings.task == "multilabel" else found


def _find(settings: DataSettings) -> FoundData:
    name, reason = recognised(settings)
    found_data = _reader(name).read(settings)
    if settings.format == "auto" and name not in _SILENT:
        found_data.notes.insert(0, format_note(name, reason))
    return found_data


def format_note(name: str, reason: str) -> str:
    """What is said of a format that was not asked for."""
    return f"read as {name}: {reason} (--format {name})"


def recognised(settings: DataSettings) -> tuple[str, str]:
    """The format of a data set, and why it is taken for that.

    Raises:
        SettingsError: Several formats are possible.
    """
    if settings.mask_pattern is not None and settings.format not in ("auto", "folders"):
        raise SettingsError(f"mask_pattern is for image files in folders, not for format={settings.format}.")
    if settings.format != "auto":
        return settings.format, "as --format says"
    if settings.mask_pattern is not None:
        return "folders", "by --mask_pattern"
    images, masks = Path(settings.images), Path(settings.masks) if settings.masks is not None else None
    reasons = {name: reason for name in FORMATS[1:] if (reason := _reader(name).recognise(images, masks))}
    if len(reasons) > 1:
        found = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise SettingsError(f"{settings.images} may be of several formats ({found}). Say which with --format.")
    for name, reason in reasons.items():
        return name, reason
    return "folders", "nothing else fits"  # whose reader says what is missing


def _reader(name: str):  # type: ignore[no-untyped-def]  # a module
    return import_module(f"convlora.data.readers.{_MODULES.get(name, name.replace('-', '_'))}")
