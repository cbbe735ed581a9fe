"""Run a segmenter over images of any size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from convlora.sam.processing import SamSegmentationImageProcessor


def segment(
    model: nn.Module, processor: SamSegmentationImageProcessor, images: Sequence[np.ndarray]
) -> Iterator[Tensor]:
    """Logits of each image at its own size, one after the other.

    Args:
        model: A `SamForSemanticSegmentation`, tuned or not, in evaluation mode.
        processor: The one that the model was tuned with.
        images: A batch of uint8 arrays (H, W, 3), RGB, of any sizes.

    Yields:
        (k, H, W) float32 on the CPU; k = 1 for a binary task.
    """
    device = next(model.parameters()).device
    with torch.inference_mode():
        logits = model(pixel_values=processor(list(images)).pixel_values.to(device)).logits
        for one, image in zip(logits, images, strict=True):
            yield processor.post_process_logits(one, image.shape[:2]).cpu()
