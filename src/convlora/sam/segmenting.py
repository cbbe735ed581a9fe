"""Run a segmenter over images of any size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from convlora.sam.processing import SamSegmentationImageProcessor
from convlora.sam.tiling import Box, Predict, slide, slide_bands


def segment(
    model: nn.Module, processor: SamSegmentationImageProcessor, images: Sequence[np.ndarray]
) -> Iterator[Tensor]:
    """Logits of each image at its own size, one after the other.

    Images larger than `processor.tile` are cut into overlapping tiles, as many at a time as there are images.

    Args:
        model: A `SamForSemanticSegmentation`, tuned or not, in evaluation mode.
        processor: The one that the model was tuned with.
        images: A batch of uint8 arrays (H, W, 3), RGB, of any sizes; of raw channels (H, W, C).

    Yields:
        (k, H, W) float32 on the CPU; k = 1 for a binary task.

    Raises:
        SettingsError: An image is larger than a tile, and MONAI is missing.
    """
    with torch.inference_mode():
        tile = processor.tile
        if tile is None or all(max(image.shape[:2]) <= tile for image in images):
            yield from (logits.cpu() for logits in _whole(model, processor, images))
            return
        for image in images:
            if max(image.shape[:2]) <= tile:
                yield from (logits.cpu() for logits in _whole(model, processor, [image]))
                continue
            predict = _of_tiles(model, processor, functools.partial(_cut, image))
            size, overlap = image.shape[:2], processor.overlap
            yield slide(predict, size, tile, overlap, batch_size=len(images), device=_device(model))


def segment_bands(
    model: nn.Module,
    processor: SamSegmentationImageProcessor,
    read: Callable[[Sequence[Box]], list[np.ndarray]],
    size: tuple[int, int],
    *,
    batch_size: int = 1,
    first: int = 0,
) -> Iterator[tuple[int, Tensor]]:
    """What `segment` gives for one image that is larger than a tile, band by band, while the image is read in tiles.

    Args:
        model, processor: As in `segment`; `processor.tile` is set.
        read: Gives uint8 (h, w, 3) for each of some boxes of one row of tiles.
        size: (H, W) of the image.
        batch_size: Tiles that are segmented at a time.
        first: Number of the band to begin with.

    Yields:
        A band's first row and its logits (k, rows, W), as `convlora.sam.tiling.slide_bands` explains.
    """
    if processor.tile is None:
        raise ValueError("segment_bands needs a processor with a tile")
    with torch.inference_mode():
        predict = _of_tiles(model, processor, read)
        yield from slide_bands(predict, size, processor.tile, processor.overlap, batch_size=batch_size, first=first)


def _cut(image: np.ndarray, boxes: Sequence[Box]) -> list[np.ndarray]:
    return [image[box] for box in boxes]


def _whole(
    model: nn.Module, processor: SamSegmentationImageProcessor, images: Sequence[np.ndarray]
) -> Iterator[Tensor]:
    """Logits (k, H, W) of each image, on the model's device."""
    logits = model(pixel_values=processor(list(images)).pixel_values.to(_device(model))).logits
    for one, image in zip(logits, images, strict=True):
        yield processor.post_process_logits(one, image.shape[:2])


def _of_tiles(
    model: nn.Module,
    processor: SamSegmentationImageProcessor,
    read: Callable[[Sequence[Box]], list[np.ndarray]],
) -> Predict:
    return lambda boxes: torch.stack(list(_whole(model, processor, read(boxes))))


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
