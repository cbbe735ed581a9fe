"""Time the layer: experts against the paper's formulation, and Conv-LoRA against LoRA.

    python -m benchmarks.layer [--output benchmarks/results/layer.json]

Every figure is a ratio of medians inside one run; the two sides alternate, and which goes first alternates too.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from benchmarks.machine import describe
from benchmarks.models import experts_as_released
from benchmarks.timing import paired
from convlora import ConvLoraConfig, balance_loss
from convlora.adapter.experts import apply_experts, init_experts
from tests.adapter import oracle

SCALES = tuple(range(1, 9))
GRIDS = {"64x64, 1 map": (1, 64), "14x14, 25 windows": (25, 14)}


def experts(rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of the oracle over seconds of ours, forward and backward, r = 3."""
    torch.manual_seed(0)
    weight, bias = torch.empty(8, 3, 3, 3, 3), torch.zeros(8, 3)
    init_experts(weight, bias)
    weight.requires_grad_(), bias.requires_grad_()
    table: dict[str, dict[str, float]] = {}
    for name, (batch, side) in GRIDS.items():
        z = torch.randn(batch, 3, side, side, requires_grad=True)
        row = {
            f"scale {scale}": one_scale(z, weight[scale - 1 :][:1], bias[scale - 1 :][:1], scale, rounds)
            for scale in SCALES
        }
        row["mean over scales"] = statistics.mean(row.values())
        maps = torch.randn(max(batch, 8), 3, side, side, requires_grad=True)
        table[name] = row | mixed_routing(maps, weight, bias, rounds)
    return table


def one_scale(z: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, scale: int, rounds: int) -> float:
    weight, bias = weight.detach().requires_grad_(), bias.detach().requires_grad_()
    index = torch.zeros(len(z), dtype=torch.long)
    ours = lambda: apply_experts(z, weight, bias, index, (scale,)).sum().backward()
    naive = lambda: oracle.expert(z, weight[0], bias[0], scale).sum().backward()
    slow, fast = paired(naive, ours, rounds)
    return slow / fast


def mixed_routing(z: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, rounds: int) -> dict[str, float]:
    index = torch.arange(len(z)) % 8
    ours = lambda: apply_experts(z, weight, bias, index, SCALES).sum().backward()
    one_by_one = lambda: oracle.mixture(z, weight, bias, index, SCALES).sum().backward()
    grouped = lambda: experts_as_released(z, weight, bias, index, SCALES).sum().backward()
    row = {}
    for name, naive in (("one by one", one_by_one), ("grouped by expert", grouped)):
        slow, fast = paired(naive, ours, rounds)
        row[f"mixed routing, {len(z)} maps, {name}"] = slow / fast
    return row


class Projection(nn.Module):
    """The fused qkv of one ViT block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.qkv(x)


def layers(rounds: int) -> dict[str, float]:
    """Seconds of a Conv-LoRA layer over seconds of PEFT's LoRA layer, forward and backward, gate included."""
    table = {}
    for model, width in (("ViT-B", 768), ("ViT-H", 1280)):
        for name, (batch, side) in GRIDS.items():
            x = torch.randn(batch, side, side, width, requires_grad=True)
            conv = get_peft_model(Projection(width), ConvLoraConfig(target_modules=["qkv"]))
            lora = get_peft_model(Projection(width), LoraConfig(r=3, lora_alpha=32, target_modules=["qkv"]))
            ours = lambda x=x, m=conv: (m(x).sum() + balance_loss(m)).backward()
            plain = lambda x=x, m=lora: m(x).sum().backward()
            slow, fast = paired(ours, plain, rounds)
            table[f"{model}, {name}"] = slow / fast
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/layer.json"))
    parser.add_argument("--rounds", type=int, default=24)
    arguments = parser.parse_args()
    result = {
        "machine": describe(),
        "rounds": arguments.rounds,
        "experts: paper's formulation / ours": experts(arguments.rounds),
        "layer: Conv-LoRA / LoRA": layers(arguments.rounds),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
