"""Which modules of a segmenter a method adapts, and which it trains whole; by their full names."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from convlora.errors import SettingsError
from convlora.sam import SamForSemanticSegmentation
from convlora.sam.channels import CHANNEL_KERNEL

Wanted = Callable[[str, nn.Module], bool]
"""Whether a module, given with its name inside the encoder or the decoder, is adapted."""

_PRETRAINED = ("iou_token", "transformer", "upscale_conv1", "upscale_conv2", "upscale_layer_norm")
"""Parts of the mask decoder that do not depend on the classes."""


def encoder_targets(model: SamForSemanticSegmentation, wanted: Wanted, blocks: int | list[int] | None) -> list[str]:
    """Names of the modules of the image encoder that are adapted; not the kernel of raw channels, which is tuned whole.

    Args:
        model: The segmenter.
        wanted: Chooses them.
        blocks: Only inside these blocks: the last N, or a list of numbers from 0. None is the whole encoder, patch
            embedding and neck included.

    Raises:
        SettingsError: `blocks` names blocks that are not there.
    """
    chosen = chosen_blocks(model, blocks)
    inside = ("",) if chosen is None else tuple(f"layers.{i}." for i in chosen)
    return [
        f"sam.vision_encoder.{name}"
        for name, module in model.sam.vision_encoder.named_modules()
        if wanted(name, module) and name.startswith(inside) and not name.endswith(CHANNEL_KERNEL)
    ]


def decoder_targets(model: SamForSemanticSegmentation, wanted: Wanted) -> list[str]:
    """Names of the modules of the mask decoder that are adapted, in the parts that do not depend on the classes."""
    return [
        f"sam.mask_decoder.{name}"
        for name, module in model.sam.mask_decoder.named_modules()
        if wanted(name, module) and name.split(".")[0] in _PRETRAINED
    ]


def decoder_heads(model: SamForSemanticSegmentation) -> list[str]:
    """Names of the parts of the mask decoder that a new task needs: mask tokens, hyper-networks, classifiers."""
    names = []
    for name, module in model.sam.mask_decoder.named_children():
        if name not in _PRETRAINED and any(True for _ in module.parameters()):
            # PEFT wraps no module list, but its entries
            parts = [f"{name}.{i}" for i in range(len(module))] if isinstance(module, nn.ModuleList) else [name]
            names += [f"mask_decoder.{part}" for part in parts]
    return names


def chosen_blocks(model: SamForSemanticSegmentation, blocks: int | list[int] | None) -> list[int] | None:
    """Numbers of the encoder's blocks that a setting names, in order; None for all.

    Raises:
        SettingsError: It names blocks that are not there.
    """
    if blocks is None:
        return None
    count = len(model.sam.vision_encoder.layers)
    chosen = list(range(count - blocks, count)) if isinstance(blocks, int) else sorted(set(blocks))
    if not chosen or chosen[0] < 0 or chosen[-1] >= count:
        raise SettingsError(
            f"adapter.blocks={blocks}: this encoder has {count} blocks; give how many of the last ones (1 to {count}), "
            f"or a list of numbers from 0 to {count - 1}."
        )
    return chosen
