"""The adapter: a small bottleneck network behind a sublayer. Houlsby et al., ICML 2019, arXiv 1902.00751."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from convlora.adapter.baselines.wrapping import WrappingConfig, WrappingLayer, WrappingModel

PEFT_TYPE = "HOULSBY"


@dataclass
class HoulsbyConfig(WrappingConfig):
    """Configuration of the bottleneck adapter.

    `target_modules` are the last linear layers of the sublayers: the projection behind attention, and the second layer
    of the MLP. The block adds its skip connection after that, as in figure 2 of the paper. Norms stay frozen; the
    paper tunes them too.

    Args:
        r: Width of the bottleneck.
    """

    r: int = field(default=3, metadata={"help": "Width of the bottleneck."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        if not isinstance(self.r, int) or self.r < 1:
            raise ValueError(f"HoulsbyConfig: r={self.r!r} must be an integer of at least 1")


class HoulsbyLayer(WrappingLayer):
    """`h = f(x) + W_up GELU(W_down f(x) + b_down) + b_up`. W_up starts at 0, so tuning starts at the base model."""

    adapter_layer_names = ("houlsby_down", "houlsby_up")
    adaptable = (nn.Linear,)

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__(base_layer, adapter_name)
        self.houlsby_down = nn.ModuleDict()
        self.houlsby_up = nn.ModuleDict()

    def add_weights(self, adapter_name: str, config: Any) -> None:
        """Start at no change."""
        features = self.get_base_layer().out_features
        down, up = nn.Linear(features, config.r), nn.Linear(config.r, features)
        for parameter in (down.bias, up.weight, up.bias):
            nn.init.zeros_(parameter)
        self.houlsby_down[adapter_name] = down
        self.houlsby_up[adapter_name] = up

    def adapt(self, adapter_name: str, output: Tensor) -> Tensor:
        """Add what the bottleneck makes of (…, features)."""
        down, up = self.houlsby_down[adapter_name], self.houlsby_up[adapter_name]
        tokens = self._cast_input_dtype(output, next(down.parameters()).dtype)
        return output + up(F.gelu(down(tokens)))


class HoulsbyModel(WrappingModel):
    """The bottleneck adapter on any model with `nn.Linear` layers; made by `peft.get_peft_model`."""

    prefix = "houlsby_"
    tuner_layer_cls = HoulsbyLayer
