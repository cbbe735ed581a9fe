"""Find out in which format a data set comes, and read it."""

from __future__ import annotations

import dataclasses
import os
from importlib import import_module
from pathlib import Path

from convlora.data.readers.coloured import in_colours
from convlora.data.readers.found import FoundData
from convlora.data.readers.image_files import folders_in
from convlora.data.readers.multilabel import with_channels
from convlora.data.readers.pictures import in_pictures
from convlora.data.settings import FORMATS, HUB, DataSettings
from convlora.errors import PairingError, SettingsError

_SILENT = ("folders", "csv")  # what the documentation shows first; all others are named in a note
_LOOKED_INTO = 20  # folders
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
        PairingError: There is no such file or folder.
        SettingsError: Several formats are possible, or none.
    """
    if settings.mask_pattern is not None and settings.format not in ("auto", "folders"):
        raise SettingsError(f"mask_pattern is for image files in folders, not for format={settings.format}.")
    if settings.format != "auto":
        return settings.format, "as --format says"
    if settings.mask_pattern is not None:
        return "folders", "by --mask_pattern"
    _require_there(settings)
    images, masks = Path(settings.images), Path(settings.masks) if settings.masks is not None else None
    reasons = _reasons(images, masks)
    if len(reasons) > 1:
        found = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise SettingsError(f"{settings.images} may be of several formats ({found}). Say which with --format.")
    for name, reason in reasons.items():
        return name, reason
    if masks is None:
        raise SettingsError(_masks_are_missing(images))
    return "folders", "nothing else fits"  # whose reader says what is missing


def _require_there(settings: DataSettings) -> None:
    for role, place in (("images", settings.images), ("masks", settings.masks)):
        there = place is None or os.path.exists(place)  # noqa: PTH110  # Path.exists raises if a name is too long
        if not there and not settings.images.startswith(HUB):
            raise PairingError(f"{role}: {place} does not exist; give a folder or, for images, a CSV file.")


def _reasons(images: Path, masks: Path | None) -> dict[str, str]:
    """The formats that are possible, and why."""
    return {name: reason for name in FORMATS[1:] if (reason := _reader(name).recognise(images, masks))}


def _masks_are_missing(images: Path) -> str:
    """What to say of images alone; archives are often unpacked into one folder more than expected."""
    inner = folders_in(images)
    inner += [folder for place in inner[:_LOOKED_INTO] for folder in folders_in(place)]
    found = [(folder, *reason) for folder in inner[:_LOOKED_INTO] for reason in _reasons(folder, None).items()]
    if len(found) == 1:
        folder, name, reason = found[0]
        return f"masks is missing: {images} itself is of no format, but {folder} is {name} ({reason}). Give that."
    return (
        f"masks is missing: {images} holds no annotations that can be read ({', '.join(FORMATS[3:])}). Give the folder "
        "with the masks, a CSV file as images, or --mask_pattern if they are beside the images."
    )


def _reader(name: str):  # type: ignore[no-untyped-def]  # a module
    return import_module(f"convlora.data.readers.{_MODULES.get(name, name.replace('-', '_'))}")
