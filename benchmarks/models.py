"""The models that are timed: ours, and the shape of the released stack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import SamConfig, SamModel, SamVisionConfig

from convlora import SamForSemanticSegmentation, balance_loss
from convlora.adapter import layer as adapter_layer
from convlora.sam.checkpoints import locate
from convlora.sam.precision import autocast, pick_device, resolve_precision, store_frozen
from convlora.sam.prefix import frozen_blocks
from convlora.training.methods import apply_method
from convlora.training.prefix_cache import PrefixCache, digest
from convlora.training.settings import AdapterSettings
from tests.adapter import oracle
from tests.sam.models import small_config

VIT_H = SamVisionConfig(
    hidden_size=1280, num_hidden_layers=32, num_attention_heads=16, global_attn_indexes=[7, 15, 23, 31], mlp_dim=5120
)
ARCHITECTURES: dict[str, Callable[[], SamConfig]] = {
    "sam-small": small_config,
    "sam-tiny": lambda: SamConfig.from_pretrained(locate("sam-tiny")),
    "vit-b": SamConfig,
    "vit-h": lambda: SamConfig(vision_config=VIT_H.to_dict()),
}
DEVICE = pick_device("auto")


def build(arch: str, size: int, kind: str) -> nn.Module:
    """A model with random weights.

    Args:
        arch: One of `ARCHITECTURES`.
        size: Input side in pixels.
        kind: "released", "sdpa" (transformers' forward pass in float32), "ours-fp32" or "ours-auto" (forward pass),
            "last-four" (Conv-LoRA in the last four blocks), or a method of `convlora train`.
    """
    torch.manual_seed(0)
    config = ARCHITECTURES[arch]()
    config._attn_implementation = {"released": "eager"}.get(kind, "sdpa")
    sam = SamModel(config)
    for parameter in sam.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
    fused = kind not in ("released", "sdpa")
    base = SamForSemanticSegmentation.from_sam(sam, image_size=size, fused_attention=fused)
    precision = "fp32" if kind in ("released", "sdpa", "ours-fp32") else resolve_precision("auto", DEVICE)
    if kind == "sdpa" or kind.startswith("ours-"):
        model: nn.Module = base.requires_grad_(False).eval()
    else:
        method = {"released": "conv-lora", "last-four": "conv-lora"}.get(kind, kind)
        model = apply_method(base, method, AdapterSettings(blocks=4 if kind == "last-four" else None)).train()
        for name, parameter in model.named_parameters():
            if "lora_gate" in name:
                nn.init.normal_(parameter)  # so that windows go to different experts
    store_frozen(base.sam.vision_encoder, precision)
    model.precision, model.released = precision, kind == "released"
    return model.to(DEVICE)


def step(model: PeftModel, size: int, batch: int, cache: Path | None = None) -> Callable[[], None]:
    """A training step on a batch of random pixels, optimiser included."""
    pixels, labels = _batch(size, batch)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    prefix = None
    encoder = model.get_base_model().sam.vision_encoder
    digests = [digest(image) for image in pixels.cpu()]  # in training the data workers do it
    if cache is not None:
        prefix = PrefixCache(cache, encoder, frozen_blocks(encoder), model.precision, 10**11)

    def run() -> None:
        with autocast(model.precision, DEVICE):
            if prefix is None:
                loss = model(pixel_values=pixels, labels=labels).loss
            else:
                states = prefix.states(encoder, pixels, digests)
                loss = model(labels=labels, prefix_states=states, prefix_blocks=prefix.blocks).loss
        (loss + balance_loss(model)).backward()
        optimizer.step()
        optimizer.zero_grad()

    return _as_released(run) if model.released else run


def forward(model: nn.Module, size: int, batch: int) -> Callable[[], Tensor]:
    """A forward pass in inference mode on a batch of random pixels."""
    pixels, _ = _batch(size, batch)

    def run() -> Tensor:
        with torch.inference_mode(), autocast(model.precision, DEVICE):
            return model(pixel_values=pixels).logits

    return run


def _batch(size: int, batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(batch, 3, size, size, generator=generator)
    labels = torch.randint(0, 2, (batch, size, size), generator=generator)
    return pixels.to(DEVICE), labels.to(DEVICE)


def _as_released(run: Callable[[], None]) -> Callable[[], None]:
    def patched() -> None:
        with mock.patch.object(adapter_layer, "apply_experts", experts_as_released):
            run()

    return patched


def experts_as_released(
    z: Tensor, weight: Tensor, bias: Tensor, index: Tensor, scales: tuple[int, ...], activation: str = "gelu"
) -> Tensor:
    """Up-sample, convolve, sample down; all maps of one expert together, found through the host."""
    out = torch.zeros_like(z)
    for expert in sorted(set(index.tolist())):
        chosen = (index == expert).nonzero().flatten()
        out = out.index_add(0, chosen, oracle.expert(z[chosen], weight[expert], bias[expert], scales[expert]))
    return out
