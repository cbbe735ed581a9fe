"""Small models with a token grid, for the tests of the adapter."""

from __future__ import annotations

import torch
from peft import get_peft_model
from torch import nn
from torch.utils.checkpoint import checkpoint

from convlora import ConvLoraConfig


class Vit(nn.Module):
    """Two blocks of token mixing without attention: enough for an adapter, and quick."""

    def __init__(self, width=12):
        super().__init__()
        self.blocks = nn.ModuleList(nn.ModuleDict({"qkv": nn.Linear(width, 3 * width)}) for _ in range(2))
        self.head = nn.Linear(width, 2)
        self.reentrant = None

    def block(self, i, x):
        q, k, v = self.blocks[i]["qkv"](x).chunk(3, -1)
        return x + torch.tanh(q) * v + k

    def forward(self, x):
        for i in range(len(self.blocks)):
            if self.reentrant is None:
                x = self.block(i, x)
            else:
                x = checkpoint(self.block, i, x, use_reentrant=self.reentrant)
        return self.head(x)


def adapted(seed=0, width=12, trained=True, **config):
    """A Vit with Conv-LoRA; `trained` gives the zero-initialised weights values, so that the adapter does something."""
    torch.manual_seed(seed)
    model = get_peft_model(Vit(width), ConvLoraConfig(**{"target_modules": ["qkv"], **config}))
    if trained:
        randomise(model)
    return model


def randomise(model, adapter="default"):
    for name, parameter in model.named_parameters():
        if f".{adapter}" in name and any(kind in name for kind in ("lora_B", "lora_gate", "lora_noise", "expert_bias")):
            nn.init.normal_(parameter, std=0.5)
