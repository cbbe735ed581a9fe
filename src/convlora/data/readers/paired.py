"""A folder of images and a folder of masks."""

from __future__ import annotations

from pathlib import Path

from convlora.data.decoding import IMAGE_SUFFIXES
from convlora.data.pairing import find_samples
from convlora.data.readers.found import FoundData
from convlora.data.settings import DataSettings


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    if masks is None or not masks.is_dir():
        return None
    files = any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in masks.iterdir())
    return f"{masks} is a folder of image files" if files else None


def read(settings: DataSettings) -> FoundData:
    """Pair images and masks by stem; see `find_samples`."""
    return FoundData(find_samples(settings.images, settings.masks))
