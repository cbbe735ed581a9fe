"""Methods of fine-tuning: each one a PEFT configuration, so that all save, load and switch off alike."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model

from convlora.adapter import ConvLoraConfig
from convlora.adapter.saving import NO_TARGET
from convlora.errors import SettingsError
from convlora.sam import SamForSemanticSegmentation
from convlora.training.settings import AdapterSettings

DECODER = ["mask_decoder"]


def peft_config(method: str, adapter: AdapterSettings, num_blocks: int) -> PeftConfig:
    """The configuration of a method for an encoder of `num_blocks` blocks.

    The mask decoder is tuned whole in every method (paper, section 3.3); "conv-lora" and "lora" adapt the image
    encoder, "decoder" leaves it alone, "full" tunes all of it.

    Raises:
        SettingsError: `adapter.blocks` names blocks that are not there.
    """
    shared: dict[str, Any] = {
        "r": adapter.r,
        "lora_alpha": adapter.lora_alpha,
        "lora_dropout": adapter.lora_dropout,
        "target_modules": list(adapter.target_modules),
        "modules_to_save": DECODER,
        "layers_to_transform": _blocks(adapter.blocks, num_blocks),
    }
    if method == "conv-lora":
        return ConvLoraConfig(
            **shared,
            num_experts=adapter.num_experts,
            routing=adapter.routing,
            balance_weight=adapter.balance_weight,
        )
    if method == "lora":
        return LoraConfig(**shared)
    if method == "decoder":
        return LoraConfig(target_modules=NO_TARGET, modules_to_save=DECODER)
    if method == "full":
        return LoraConfig(target_modules=NO_TARGET, modules_to_save=["vision_encoder", *DECODER])
    raise ValueError(f"unknown method {method!r}")


def apply_method(model: SamForSemanticSegmentation, method: str, adapter: AdapterSettings) -> PeftModel:
    """Freeze a segmenter but for what the method trains.

    Raises:
        SettingsError: `adapter.blocks` or `adapter.target_modules` names what is not there or cannot be adapted.
    """
    config = peft_config(method, adapter, len(model.sam.vision_encoder.layers))
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise SettingsError(
            f"adapter.target_modules={adapter.target_modules} cannot be adapted: {' '.join(str(error).split())} Give "
            "names of linear layers of the image encoder, such as qkv, proj, lin1, lin2."
        ) from error


def _blocks(blocks: int | list[int] | None, num_blocks: int) -> list[int] | None:
    if blocks is None:
        return None
    chosen = list(range(num_blocks - blocks, num_blocks)) if isinstance(blocks, int) else sorted(set(blocks))
    if not chosen or chosen[0] < 0 or chosen[-1] >= num_blocks:
        raise SettingsError(
            f"adapter.blocks={blocks}: this encoder has {num_blocks} blocks; give how many of the last ones (1 to "
            f"{num_blocks}), or a list of numbers from 0 to {num_blocks - 1}."
        )
    return chosen


def count_parameters(model: PeftModel) -> tuple[int, int]:
    """Number of trainable scalars, and of all that take part: a module that is tuned whole counts once."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for name, p in model.named_parameters() if ".original_module." not in name)
    return trainable, total
