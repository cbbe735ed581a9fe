"""Methods of fine-tuning: each one a PEFT configuration, so that all save, load and switch off alike."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model

from convlora.adapter import ConvLoraConfig
from convlora.adapter.saving import NO_TARGET
from convlora.sam import SamForSemanticSegmentation
from convlora.training.settings import AdapterSettings

DECODER = ["mask_decoder"]


def peft_config(method: str, adapter: AdapterSettings) -> PeftConfig:
    """The configuration of a method.

    The mask decoder is tuned whole in every method (paper, section 3.3); "conv-lora" and "lora" adapt the image
    encoder, "decoder" leaves it alone, "full" tunes all of it.
    """
    shared: dict[str, Any] = {
        "r": adapter.r,
        "lora_alpha": adapter.lora_alpha,
        "lora_dropout": adapter.lora_dropout,
        "target_modules": list(adapter.target_modules),
        "modules_to_save": DECODER,
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
    """Freeze a segmenter but for what the method trains."""
    return get_peft_model(model, peft_config(method, adapter))


def count_parameters(model: PeftModel) -> tuple[int, int]:
    """Number of trainable scalars, and of all that take part: a module that is tuned whole counts once."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for name, p in model.named_parameters() if ".original_module." not in name)
    return trainable, total
