"""How much each expert is used."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from convlora.adapter.config import ConvLoraConfig
from convlora.adapter.layer import ConvLoraLinear


def has_choice(config: object) -> bool:
    """Whether an adapter of this configuration is a Conv-LoRA that favours some of its experts over others."""
    return isinstance(config, ConvLoraConfig) and len(config.scales) > 1 and config.routing != "sum"


def choosing_layers(model: nn.Module) -> dict[str, ConvLoraLinear]:
    """The Conv-LoRA layers of a model with one active adapter and several experts to choose among, by their path."""
    layers = {path: module for path, module in model.named_modules() if isinstance(module, ConvLoraLinear)}
    return {
        path: layer
        for path, layer in layers.items()
        if len(layer.active_adapters) == 1 and has_choice(layer.conv_lora.get(layer.active_adapters[0]))
    }


def expert_usage(layer: ConvLoraLinear) -> Tensor:
    """How many samples of the last forward pass each expert got: (M,) float32, without a gradient.

    Shares of soft routing are added up. The device is not waited for.

    Raises:
        ValueError: There was no forward pass.
    """
    (name,) = layer.active_adapters
    routing = layer.routing[name]
    if routing is None:
        raise ValueError("this layer has not routed anything yet")
    if routing.shares is not None:
        return routing.shares.detach().float().mean((2, 3)).sum(0)
    return F.one_hot(routing.index, routing.num_experts).sum(0).float()
