"""A CSV file that lists images and masks."""

from __future__ import annotations

from pathlib import Path

from convlora.data.pixels.channels import image_suffixes
from convlora.data.readers.found import FoundData
from convlora.data.readers.pairing import find_samples
from convlora.data.settings import DataSettings


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    return f"{images} is a CSV file" if images.suffix.lower() == ".csv" and not images.is_dir() else None


def read(settings: DataSettings) -> FoundData:
    """Read the rows; see `convlora.data.readers.listing`."""
    return FoundData(find_samples(settings.images, settings.masks, image_suffixes(settings.channels)))
