"""Masks of the published archives that training would refuse, made as the released code reads them.

It binarises the truth at half of the range and squeezes image and mask to one square, so a mask may be grey at its
edges, saved as JPEG, in colour, or of another size than its image. One departure: where a palette holds dark colours
alone, half of the range would leave no foreground, so that the indices count.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from convlora.data.catalog.fetching import Progress
from convlora.data.findings.checking import THREADS
from convlora.data.pixels.decoding import DEFAULT_LIMITS, image_size, opened, upright
from convlora.data.samples import Sample
from convlora.data.sources import file_of
from convlora.errors import DataError

HALF = 128  # of 0…255; from here on a pixel is foreground
_GREY_OR_COLOUR = ("1", "L", "LA", "P", "RGB", "RGBA")


@dataclass(frozen=True)
class Repaired:
    """The masks to use.

    Attributes:
        masks: By sample: the archive's own, or the file written instead.
        binarised: Number of masks that held other values than 0 and 255.
        resized: Number of masks that had another size than their image.
    """

    masks: list[Path]
    binarised: int
    resized: int


def repair_masks(samples: Sequence[Sample], folder: Path, *, binary: bool, progress: Progress) -> Repaired:
    """Write what must be changed of the masks below `folder`, as PNG; the masks themselves stay as they are.

    Args:
        samples: All with masks below one folder, the parent of `folder`.
        folder: Made when it is needed.
        binary: Whether masks hold foreground and background, and not class ids.
        progress: Called with the masks done and all.

    Raises:
        ImageError: A mask or an image is damaged.
    """

    def one(sample: Sample) -> tuple[Path, bool, bool]:
        return _repair(sample, folder, binary)

    pool = ThreadPoolExecutor(THREADS)
    results = []
    try:
        for result in pool.map(one, samples):
            results.append(result)
            progress(len(results), len(samples))
    finally:
        pool.shutdown(cancel_futures=True)
    return Repaired(
        [mask for mask, _, _ in results],
        sum(binarised for _, binarised, _ in results),
        sum(resized for _, _, resized in results),
    )


def _repair(sample: Sample, folder: Path, binary: bool) -> tuple[Path, bool, bool]:
    source = file_of(sample.required_mask())
    size = image_size(file_of(sample.image))
    with opened(source, DEFAULT_LIMITS) as picture:
        values = _foreground(source, upright(picture)) if binary else upright(picture)
        binarised = isinstance(values, np.ndarray)
        mask = Image.fromarray(values) if isinstance(values, np.ndarray) else values
        resized = mask.size != (size[1], size[0])
        if not (binarised or resized):
            return source, False, False
        # the whole name and the size: 0.png and 0.bmp may both be masks, and one mask that of two images
        target = folder / source.relative_to(folder.parent).with_name(f"{source.name}.{size[1]}x{size[0]}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        mask.resize((size[1], size[0]), Image.Resampling.NEAREST).save(target)
        return target, binarised, resized


def _foreground(path: Path, picture: Image.Image) -> np.ndarray | Image.Image:
    """The mask itself if it is grey and holds 0 and 255 alone; else uint8 (H, W) that does."""
    if picture.mode not in _GREY_OR_COLOUR:
        raise DataError(f"{path}: a mask of colour mode {picture.mode} is not expected in this set.")
    grey = np.asarray(picture.convert("L"))
    if picture.mode in ("1", "L") and not np.any((grey != 0) & (grey != 255)):
        return picture
    if picture.mode == "P" and grey.max() < HALF:  # such as a palette of black and (128, 0, 0)
        grey = np.where(np.asarray(picture) > 0, 255, 0)
    foreground = grey == 1 if grey.max() == 1 else grey >= HALF  # 0 and 1 is the other usual way to store it
    return np.where(foreground, 255, 0).astype(np.uint8)
