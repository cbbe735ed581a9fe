"""BitFit: tune the biases. Ben Zaken et al., ACL 2022, arXiv 2106.10199."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convlora.adapter.baselines.wrapping import WrappingConfig, WrappingLayer, WrappingModel

PEFT_TYPE = "BITFIT"


@dataclass
class BitFitConfig(WrappingConfig):
    """Configuration of BitFit; `target_modules` are modules that have a bias.

    PEFT's own `bias="all"` changes the base model in place, so it can be neither switched off nor swapped, and the
    biases of other parts of the model train with it.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE


class BitFitLayer(WrappingLayer):
    """`h = f(x) + δ`: f's own bias stays, and what training adds to it is kept beside it, one value a channel."""

    adapter_layer_names = ("bitfit_bias",)
    adaptable = (nn.Linear, nn.LayerNorm, nn.Conv2d, nn.ConvTranspose2d)

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__(base_layer, adapter_name)
        self.bitfit_bias = nn.ParameterDict()

    def add_weights(self, adapter_name: str, config: Any) -> None:
        """Start at no change.

        Raises:
            ValueError: The base module has no bias.
        """
        bias = self.get_base_layer().bias
        if bias is None:
            raise ValueError(f"BitFit tunes biases, and a {type(self.base_layer).__name__} among its targets has none.")
        self.bitfit_bias[adapter_name] = nn.Parameter(torch.zeros_like(bias))

    def adapt(self, adapter_name: str, output: Tensor) -> Tensor:
        """Shift each channel."""
        return output + self.along_channels(self.bitfit_bias[adapter_name], output)


class BitFitModel(WrappingModel):
    """BitFit on any model; made by `peft.get_peft_model`."""

    prefix = "bitfit_"
    tuner_layer_cls = BitFitLayer
