"""Methods of fine-tuning: each one a PEFT configuration, so that all save, load and switch off alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peft import LNTuningConfig, LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

from convlora.adapter import ConvLoraConfig
from convlora.adapter.baselines import (
    BitFitConfig,
    HoulsbyConfig,
    LstConfig,
    SamAdapterConfig,
    SSFConfig,
    VptConfig,
)
from convlora.adapter.baselines.bitfit import BitFitLayer
from convlora.adapter.baselines.ssf import SSFLayer
from convlora.adapter.reading import NO_TARGET
from convlora.errors import SettingsError
from convlora.sam import SamForSemanticSegmentation
from convlora.sam.channels import CHANNEL_KERNEL
from convlora.sam.tiny_vit import TinyVitEncoder
from convlora.training.settings import METHODS, AdapterSettings, adapter_problems
from convlora.training.targets import Wanted, chosen_blocks, decoder_heads, decoder_targets, encoder_targets

_WHOLE: dict[str, list[str]] = {
    "decoder": [],
    "full": ["vision_encoder"],
    "scratch": ["vision_encoder", "no_mask_embed"],
}
"""Methods without an adapter: what they train whole beside the mask decoder."""

_NAMED = ("conv-lora", "lora", "dora")
"""Methods whose targets the user names."""

_AROUND: dict[str, Any] = {"lst": LstConfig, "sam-adapter": SamAdapterConfig}
"""Methods that put something around the whole image encoder."""


def apply_method(model: PreTrainedModel, method: str, adapter: AdapterSettings) -> PeftModel:
    """Freeze a segmenter but for what the method trains.

    Args:
        model: A `SamForSemanticSegmentation`; or a U-Net, for the method "scratch" alone. It is modified in place.
        method: One of `convlora.training.settings.METHODS`.
        adapter: Its settings.

    Returns:
        A model that gives the base model's answers; but for "vpt", whose prompts are seen from the start, and for
        "scratch", whose weights are drawn anew.

    Raises:
        SettingsError: There is no such method, it does not go with the model, or `adapter` holds a value that makes no
            sense for it, or names blocks or layers that are not there or cannot be adapted.
    """
    config = peft_config(model, method, adapter)
    try:
        tuned = get_peft_model(model, config)
    except ValueError as error:
        raise _cannot_adapt(method, adapter, " ".join(str(error).split())) from error
    if method == "scratch":
        for module in tuned.modules():
            if isinstance(module, ModulesToSaveWrapper):
                draw_weights(module.modules_to_save)
    return tuned


def peft_config(model: PreTrainedModel, method: str, adapter: AdapterSettings) -> PeftConfig:
    """The configuration of a method for a model.

    The mask decoder is tuned whole by every method (paper, section 3.3), unless `adapter.decoder` says otherwise; so is
    the kernel of raw channels, if there are any.

    Raises:
        SettingsError: As `apply_method`.
    """
    problems = adapter_problems(method, adapter)
    if method not in METHODS:
        problems.insert(0, f"method={method!r} must be one of {', '.join(METHODS)}")
    if problems:
        raise SettingsError("; ".join(problems) + ".")
    if not isinstance(model, SamForSemanticSegmentation):
        return _without_sam(model, method)
    whole = ["mask_decoder"] if adapter.decoder == "tuned" else decoder_heads(model)
    if model.config.channels is not None and "vision_encoder" not in _WHOLE.get(method, ()):
        whole.append(CHANNEL_KERNEL)
    if method in _WHOLE:
        return LoraConfig(target_modules=NO_TARGET, modules_to_save=[*_WHOLE[method], *whole])
    if method in _AROUND:
        blocks = chosen_blocks(model, adapter.blocks)
        return _AROUND[method](target_modules=["vision_encoder"], layers_to_transform=blocks, modules_to_save=whole)
    return _config(method, adapter, target_modules=_target_modules(model, method, adapter), modules_to_save=whole)


def _config(method: str, adapter: AdapterSettings, **shared: Any) -> PeftConfig:
    lora: dict[str, Any] = {"r": adapter.r, "lora_alpha": adapter.lora_alpha, "lora_dropout": adapter.lora_dropout}
    if method == "conv-lora":
        return ConvLoraConfig(
            **shared,
            **lora,
            num_experts=adapter.num_experts,
            routing=adapter.routing,
            balance_weight=adapter.balance_weight,
            residual=adapter.residual,
            activation=adapter.activation,
            kernel_size=adapter.kernel_size,
            context=adapter.context,
        )
    if method in ("lora", "dora"):
        return LoraConfig(**shared, **lora, use_dora=method == "dora")
    if method == "adapter":
        return HoulsbyConfig(**shared, r=adapter.r)
    if method == "vpt":
        return VptConfig(**shared, num_prompts=adapter.num_prompts)
    return {"bitfit": BitFitConfig, "norm": LNTuningConfig, "ssf": SSFConfig}[method](**shared)


def _target_modules(model: SamForSemanticSegmentation, method: str, adapter: AdapterSettings) -> list[str]:
    """Full names of the modules that a method adapts."""
    named = _ends_with(adapter.target_modules)
    wanted: dict[str, tuple[Wanted, Wanted | None]] = {  # in the encoder, and in the decoder
        "conv-lora": (named, None),
        "lora": (named, _is_linear),
        "dora": (named, _is_linear),
        "adapter": (_ends_with(["attn.proj", "mlp.lin2"]), _ends_with(["out_proj", "mlp.lin2"])),
        "bitfit": (_has_bias, _has_bias),
        "norm": (_is_norm, _is_norm),
        "ssf": (_is_operation, _is_operation),
        "vpt": (_ends_with(["attn"]), None),
    }
    in_encoder, in_decoder = wanted[method]
    names = encoder_targets(model, in_encoder, adapter.blocks)
    absent = [end for end in adapter.target_modules if not any(f".{name}".endswith(f".{end}") for name in names)]
    if method in _NAMED and absent:
        raise _cannot_adapt(method, adapter, f"the image encoder has no {', '.join(absent)}.")
    if not names:
        raise _cannot_adapt(method, adapter, "the image encoder has no such layers.")
    if adapter.decoder == "adapted" and in_decoder is not None:
        names += decoder_targets(model, in_decoder)
    return names


def _ends_with(names: Iterable[str]) -> Wanted:
    return lambda name, module: f".{name}".endswith(tuple(f".{end}" for end in names))


def _is_linear(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _is_norm(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.LayerNorm)


def _is_operation(name: str, module: nn.Module) -> bool:
    return isinstance(module, SSFLayer.adaptable)


def _has_bias(name: str, module: nn.Module) -> bool:
    return isinstance(module, BitFitLayer.adaptable) and module.bias is not None


def _without_sam(model: PreTrainedModel, method: str) -> PeftConfig:
    if method != "scratch":
        raise SettingsError(
            f"method={method!r} tunes a SAM, and model={model.config.name_or_path!r} has no trained weights to start "
            "from. Use method=scratch."
        )
    return LoraConfig(target_modules=NO_TARGET, modules_to_save=[model.base_model_prefix])


def _cannot_adapt(method: str, adapter: AdapterSettings, why: str) -> SettingsError:
    if method not in _NAMED:
        return SettingsError(f"method={method!r} does not fit this model: {why} Choose another method.")
    return SettingsError(
        f"adapter.target_modules={adapter.target_modules} cannot be adapted: {why} Give names of linear layers of the "
        "image encoder, such as qkv, proj, lin1, lin2."
    )


def draw_weights(module: nn.Module) -> None:
    """Start a module afresh: layers as torch initialises them, from its global generator, and positions at 0.

    This is the start that the code released with SAM gives a model without a checkpoint. The convolutions of a
    `TinyVitEncoder` keep the size of the signal instead (He et al., ICCV 2015): their batch norms are folded away, and
    without a norm torch's own start fades from layer to layer until all images look alike.
    """
    for part in module.modules():
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
        else:
            for parameter in part.parameters(recurse=False):
                nn.init.zeros_(parameter)
    for encoder in [part for part in module.modules() if isinstance(part, TinyVitEncoder)]:
        encoder.apply(_draw_convolution)


def _draw_convolution(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def count_parameters(model: PeftModel) -> tuple[int, int]:
    """Number of trainable scalars, and of all that take part: a module that is tuned whole, or a norm, counts once."""
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    replaced = [".original_module."]
    if isinstance(model.active_peft_config, LNTuningConfig):
        replaced.append(".base_layer.")  # a norm, of which a copy is tuned
    total = sum(p.numel() for name, p in model.named_parameters() if not any(part in name for part in replaced))
    return trainable, total
