"""Collect the balance loss, and set the grids, over all Conv-LoRA layers of a model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from convlora.adapter.layer import ConvLoraLinear


def balance_loss(model: nn.Module) -> Tensor:
    """Sum over the layers of `balance_weight · (CV²(importance) + CV²(load))` of the last forward pass.

    Add it to the task loss. It is a scalar on the model's device, 0 for a model without a gate. It is not
    additive over batches: twice the batch does not give the mean of two halves.

    Args:
        model: Any module that holds Conv-LoRA layers, wrapped or not.
    """
    losses = [loss for layer in _layers(model) if (loss := layer.balance_loss()) is not None]
    if losses:
        return torch.stack(losses).sum()
    parameter = next(model.parameters(), torch.empty(0))
    return torch.zeros((), device=parameter.device)


def set_token_grid(model: nn.Module, height: int, width: int) -> None:
    """Tell every Conv-LoRA layer the token grid of the (b, n, c) inputs to come; it is not saved with the adapter."""
    for layer in _layers(model):
        layer.token_grid = (height, width)


def set_image_grid(model: nn.Module, height: int, width: int) -> None:
    """Tell every Conv-LoRA layer how many tokens a whole image has, for `ConvLoraConfig(context="image")`.

    Layers whose inputs are smaller take them for windows: side by side from the top left, padded below and to the
    right, row by row, image by image along the first axis, as SAM has them. It is not saved with the adapter.
    """
    for layer in _layers(model):
        layer.image_grid = (height, width)


def _layers(model: nn.Module) -> list[ConvLoraLinear]:
    return [module for module in model.modules() if isinstance(module, ConvLoraLinear)]
