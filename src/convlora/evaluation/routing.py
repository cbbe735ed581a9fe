"""Which expert each window of an image was sent to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from convlora.adapter import ConvLoraLinear
from convlora.inference.predictor import Predictor


@dataclass(frozen=True)
class LayerChoice:
    """The choices of one adapted layer for one image.

    Attributes:
        layer: Number of the encoder block, from 0.
        module: Name of the adapted layer in its block, such as "attn.qkv".
        scales: (rows, columns) up-sampling factor chosen for each window; one value in a global block.
    """

    layer: int
    module: str
    scales: np.ndarray


def chosen_scales(predictor: Predictor, image: np.ndarray) -> list[LayerChoice]:
    """The choices of every Conv-LoRA layer for one uint8 image (H, W, 3), layer by layer."""
    predictor.logits([image])
    choices: list[LayerChoice] = []
    for path, module in predictor.model.named_modules():
        if isinstance(module, ConvLoraLinear):
            (name,) = module.active_adapters
            routing = module.routing[name]
            if routing is None:
                raise ValueError(f"{path} took no part in the forward pass")
            scales = np.array(module.conv_lora[name].scales)[routing.index.cpu().numpy()]
            side = math.isqrt(len(scales))  # the model's input is square, and so are its windows
            block, _, inside = path.rpartition(".layers.")[2].partition(".")
            choices.append(LayerChoice(int(block), inside, scales.reshape(side, side)))
    return choices
