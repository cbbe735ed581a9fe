"""A CSV file that lists images and masks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from convlora.data.pixels.channels import image_suffixes
from convlora.data.readers.found import FoundData
from convlora.data.readers.pairing import find_samples
from convlora.data.samples import first_few
from convlora.data.scientific.kinds import is_vectors
from convlora.data.settings import DataSettings


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    return f"{images} is a CSV file" if images.suffix.lower() == ".csv" and not images.is_dir() else None


def read(settings: DataSettings) -> FoundData:
    """Read the rows; see `convlora.data.readers.listing`."""
    samples = find_samples(settings.images, settings.masks, image_suffixes(settings.channels))
    uses = Counter(sample.mask for sample in samples if isinstance(sample.mask, Path) and not is_vectors(sample.mask))
    shared = [mask for mask, count in uses.items() if count > 1]
    notes = [f"masks of several images each: {first_few(shared)}; if that is not meant, correct the table"]
    return FoundData(samples, notes=notes if shared else [])
