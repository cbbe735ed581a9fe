"""A folder of images and a folder of masks."""

from __future__ import annotations

from pathlib import Path

from convlora.data.pixels.channels import image_suffixes
from convlora.data.pixels.decoding import IMAGE_SUFFIXES
from convlora.data.readers.class_files import CLASS, read_class_files
from convlora.data.readers.found import FoundData
from convlora.data.readers.pairing import find_samples
from convlora.data.readers.patterns import Patterns, find_by_pattern
from convlora.data.scientific.kinds import mask_kind
from convlora.data.settings import DataSettings


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    if masks is not None and masks.is_file() and mask_kind(masks) is not None:
        return f"{masks} is a volume, a raster or a file of outlines on earth"
    if masks is None or not masks.is_dir():
        return None
    files = any(entry.suffix.lower() in IMAGE_SUFFIXES or mask_kind(entry) for entry in masks.iterdir())
    return f"{masks} is a folder of image files" if files else None


def read(settings: DataSettings) -> FoundData:
    """Pair images and masks by stem, see `find_samples`, or by a pattern; see `find_by_pattern`, `read_class_files`."""
    if settings.mask_pattern is not None and CLASS in settings.mask_pattern:
        return read_class_files(settings)
    if settings.mask_pattern is not None:
        patterns = Patterns(settings.mask_pattern, settings.image_pattern)
        return FoundData(find_by_pattern(settings.images, settings.masks, patterns))
    return FoundData(find_samples(settings.images, settings.masks, image_suffixes(settings.channels)))
