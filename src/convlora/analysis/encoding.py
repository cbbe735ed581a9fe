"""Run the image encoder alone, and find one's way on its token grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers.models.sam.modeling_sam import SamVisionEncoder, SamVisionLayer

from convlora.inference.predictor import Predictor
from convlora.sam.precision import autocast
from convlora.sam.processing import SamSegmentationImageProcessor
from convlora.sam.segmenters import image_encoder


def encode(predictor: Predictor, images: Sequence[np.ndarray]) -> Tensor:
    """The encoder's embeddings (b, c, h, w) of uint8 images (H, W, 3), as segmenting computes them.

    Raises:
        ValueError: The model has no encoder of its own, as a U-Net.
    """
    encoder = image_encoder(predictor.model.get_base_model())
    if encoder is None:
        raise ValueError("this model has no image encoder apart from its decoder")
    pixels = predictor.processor(list(images)).pixel_values.to(predictor.device)
    with torch.inference_mode(), autocast(predictor.precision, predictor.device):
        embedding: Tensor = encoder(pixels).last_hidden_state
    return embedding


def vit_blocks(predictor: Predictor) -> list[tuple[int, SamVisionLayer]]:
    """The blocks of SAM's ViT with their numbers; none for another encoder.

    A block that is tuned whole is there twice, as it was and as it is; a forward pass goes through one of the two.
    Blocks that a method adds beside the encoder are not among them.
    """
    encoder = image_encoder(predictor.model.get_base_model())
    modules = [] if encoder is None else encoder.modules()
    vits = [module for module in modules if isinstance(module, SamVisionEncoder)]  # inside a tuner's wrapper, too
    return [(number, block) for vit in vits for number, block in enumerate(vit.layers)]


def content_tokens(
    processor: SamSegmentationImageProcessor, sizes: Sequence[tuple[int, int]], grid: tuple[int, int]
) -> Tensor:
    """(b, h, w) bool: tokens that see something of an image of (height, width), and not its padding alone.

    Args:
        processor: Places the images into the S × S input.
        sizes: Of the images.
        grid: (h, w) tokens of the input.
    """
    h, w = grid
    inside = torch.zeros(len(sizes), h, w, dtype=torch.bool)
    for tokens, size in zip(inside, sizes, strict=True):
        height, width = processor.content_size(*size)
        tokens[: -(-height * h // processor.size), : -(-width * w // processor.size)] = True
    return inside
