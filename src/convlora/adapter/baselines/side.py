"""Ladder side-tuning: a small network beside a frozen encoder. Sung et al., NeurIPS 2022, arXiv 2206.06522."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionConfig, SamVisionLayer

from convlora.adapter.baselines.encoder import EncoderLayer, EncoderModel, chosen_blocks, initialise_linear
from convlora.adapter.baselines.wrapping import WrappingConfig

PEFT_TYPE = "LST"
_HEAD_WIDTH = 16
_TEMPERATURE = 0.1


@dataclass
class LstConfig(WrappingConfig):
    """Configuration of LST for SAM; `target_modules` is the vision encoder, `layers_to_transform` the ladder's rungs.

    With encoder width c, side width w, L rungs and the MLP m times as wide as w, the trained parameters are

        L · (c·w + w + 1 + (4 + 2m)·w² + (9 + m)·w) + w·c + c

    The defaults give, on ViT-H (w = 112, L = 32) with the mask decoder, 11,492,000: the Conv-LoRA paper says 11.49 M,
    and not how its side network is built. MLPs of 4 times the width, as the encoder has, give 13.10 M, and
    11.14 M with the next smaller width (w = 96).

    Args:
        reduction: The side network is so many times narrower than the encoder, to the nearest multiple of 16.
        mlp_ratio: Width of its MLPs, in widths of the side network.
    """

    reduction: int = field(default=12, metadata={"help": "How many times narrower the side network is."})
    mlp_ratio: int = field(default=2, metadata={"help": "Width of its MLPs, in widths of the side network."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        for name in ("reduction", "mlp_ratio"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"LstConfig: {name}={value!r} must be an integer of at least 1")


class SideNetwork(nn.Module):
    """The ladder beside the encoder's blocks.

    Rung i works beside block i, with a reduced block of the same window size, on `μ_i · down_i(x_i) + (1 − μ_i) · s`:
    x_i is what block i gets, s what the rung below gave (0 at the first), `μ_i = sigmoid(α_i / 0.1)`, and α_i starts
    at 0 (section 3 of the paper). So the first rung reads the patch embeddings, and what the last block gives needs no
    rung, because the ladder's result is added to it. Positions are in x: the reduced blocks get no relative ones, and
    the network knows no input size. It starts from random weights; the paper prunes the encoder's for it.

    Two choices may differ from the paper, whose text could not be compared: the side state starts at 0, and the
    ladder's result is added to what the encoder gives.
    """

    def __init__(self, encoder: SamVisionConfig, blocks: list[int], config: LstConfig) -> None:
        super().__init__()
        self.rungs = {block: rung for rung, block in enumerate(blocks)}
        width = _HEAD_WIDTH * max(1, round(encoder.hidden_size / (_HEAD_WIDTH * config.reduction)))
        reduced = SamVisionConfig(
            hidden_size=width,
            num_attention_heads=width // _HEAD_WIDTH,
            mlp_dim=config.mlp_ratio * width,
            use_rel_pos=False,
            layer_norm_eps=encoder.layer_norm_eps,
            hidden_act=encoder.hidden_act,
        )
        reduced._attn_implementation = "sdpa"
        windows = [0 if block in encoder.global_attn_indexes else encoder.window_size for block in blocks]
        self.down = nn.ModuleList(nn.Linear(encoder.hidden_size, width) for _ in blocks)
        self.gates = nn.Parameter(torch.zeros(len(blocks)))
        self.blocks = nn.ModuleList(SamVisionLayer(reduced, window) for window in windows)
        self.up = nn.Linear(width, encoder.hidden_size)
        self.apply(initialise_linear)
        nn.init.zeros_(self.up.weight)

    def climb(self, block: int, states: Tensor, side: Tensor) -> Tensor:
        """The side state (b, h, w, ·) after the rung beside a block, from that block's input (b, h, w, c)."""
        rung = self.rungs.get(block)
        if rung is None:
            return side
        gate = torch.sigmoid(self.gates[rung] / _TEMPERATURE)
        down = self.down[rung](states.to(self.up.weight.dtype))
        climbed: Tensor = self.blocks[rung](gate * down + (1 - gate) * side)
        return climbed


class LstLayer(EncoderLayer):
    """The encoder without a graph, and the side network's result added to what its last block gives, before the neck.

    Up-projections start at 0, so tuning starts at the base model. No gradient passes through the encoder's blocks,
    unless something before them is trained, such as the kernel of raw channels.
    """

    adapter_layer_names = ("lst_side",)

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__(base_layer, adapter_name)
        self.lst_side = nn.ModuleDict()

    def add_weights(self, adapter_name: str, config: Any) -> None:
        """Add a side network."""
        blocks = chosen_blocks(config.layers_to_transform, len(self.base_layer.layers))
        self.lst_side[adapter_name] = SideNetwork(self.base_layer.config, blocks, config)

    def encode(self, pixel_values: Tensor, names: list[str]) -> Tensor:
        """The embedding (b, channels, h, w) of (b, 3, H, W) pixels."""
        networks: list[Any] = [self.lst_side[name] for name in names]
        _, states = self.embed(pixel_values)
        sides = [states.new_zeros(()) for _ in networks]
        for i, block in enumerate(self.base_layer.layers):
            sides = [network.climb(i, states, side) for network, side in zip(networks, sides, strict=True)]
            states = block(states)
        for network, side in zip(networks, sides, strict=True):
            states = states + network.up(side).to(states.dtype)
        embedding: Tensor = self.base_layer.neck(states)
        return embedding


class LstModel(EncoderModel):
    """LST on a SAM; made by `peft.get_peft_model`."""

    prefix = "lst_"
    tuner_layer_cls = LstLayer
