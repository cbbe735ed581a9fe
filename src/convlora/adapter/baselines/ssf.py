"""SSF: scale and shift what each operation gives. Lian et al., NeurIPS 2022, arXiv 2210.08823."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convlora.adapter.baselines.wrapping import WrappingConfig, WrappingLayer, WrappingModel

PEFT_TYPE = "SSF"


@dataclass
class SSFConfig(WrappingConfig):
    """Configuration of SSF; `target_modules` are linear layers, norms and convolutions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE


class SSFLayer(WrappingLayer):
    """`h = γ · f(x) + β`, one γ and one β a channel (equation 2 of the paper).

    γ starts at 1 and β at 0, so that tuning starts at the base model; the released code draws both around these values
    with a standard deviation of 0.02.
    """

    adapter_layer_names = ("ssf_scale", "ssf_shift")
    adaptable = (nn.Linear, nn.LayerNorm, nn.Conv2d, nn.ConvTranspose2d)

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__(base_layer, adapter_name)
        self.ssf_scale = nn.ParameterDict()
        self.ssf_shift = nn.ParameterDict()

    def add_weights(self, adapter_name: str, config: Any) -> None:
        """Start at the identity."""
        base = self.get_base_layer()
        channels = base.out_channels if isinstance(base, nn.Conv2d | nn.ConvTranspose2d) else len(base.weight)
        self.ssf_scale[adapter_name] = nn.Parameter(torch.ones(channels))
        self.ssf_shift[adapter_name] = nn.Parameter(torch.zeros(channels))

    def adapt(self, adapter_name: str, output: Tensor) -> Tensor:
        """Scale and shift each channel."""
        scale = self.along_channels(self.ssf_scale[adapter_name], output)
        return output * scale + self.along_channels(self.ssf_shift[adapter_name], output)


class SSFModel(WrappingModel):
    """SSF on any model; made by `peft.get_peft_model`."""

    prefix = "ssf_"
    tuner_layer_cls = SSFLayer
