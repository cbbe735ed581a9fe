"""Load the tensors of a Conv-LoRA model trained with the released code."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from convlora.adapter.layer import ConvLoraLinear


def load_released_state_dict(model: nn.Module, state_dict: Mapping[str, Tensor], adapter_name: str = "default") -> None:
    """Copy tensors named as the released code names them into a model with Conv-LoRA layers.

    Names are `<module path>.lora_A` (r × in), `.lora_B` (out × r), `.lora_moe_gating.w_gate` and `.w_noise` (r × M) and
    `.lora_moe_experts.<i>.0.weight` and `.bias`, i counted from 0; a leading `model.` is tolerated.

    Args:
        model: What `peft.get_peft_model` returned, or a model that holds Conv-LoRA layers.
        state_dict: The released tensors, and nothing else.
        adapter_name: The adapter to fill.

    Raises:
        ValueError: A tensor is missing, is not used, or has another shape. Nothing has been copied then.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, ConvLoraLinear) and adapter_name in module.conv_lora
    }
    if not layers:
        raise ValueError(f"the model has no Conv-LoRA layer with an adapter named {adapter_name!r}")
    targets = {
        f"{_base_name(name)}.{suffix}": parameter
        for name, layer in layers.items()
        for suffix, parameter in _released_names(layer, adapter_name).items()
    }
    given = {name.removeprefix("model."): tensor for name, tensor in state_dict.items()}
    for name in _gates_of_one_expert(layers, adapter_name):
        given.pop(name, None)
    problems = [f"missing: {name}" for name in targets if name not in given]
    problems += [f"not used: {name}" for name in given if name not in targets]
    problems += [
        f"{name} has shape {tuple(given[name].shape)}, not {tuple(target.shape)}"
        for name, target in targets.items()
        if name in given and given[name].shape != target.shape
    ]
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise ValueError("the released tensors do not fit this model: " + "; ".join(problems[:5]) + more)
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(given[name])


def _gates_of_one_expert(layers: Mapping[str, ConvLoraLinear], adapter_name: str) -> list[str]:
    """Gates that the released code has, and that choose nothing because there is one expert."""
    return [
        f"{_base_name(name)}.lora_moe_gating.{kind}"
        for name, layer in layers.items()
        if layer.conv_lora[adapter_name].scales == (1,)
        for kind in ("w_gate", "w_noise")
    ]


def _base_name(name: str) -> str:
    return name.removeprefix("base_model.model.").removeprefix("model.")


def _released_names(layer: ConvLoraLinear, adapter_name: str) -> dict[str, Tensor]:
    names: dict[str, Tensor] = {
        "lora_A": next(layer.lora_A[adapter_name].parameters()),
        "lora_B": next(layer.lora_B[adapter_name].parameters()),
    }
    if adapter_name in layer.lora_gate:
        names["lora_moe_gating.w_gate"] = layer.lora_gate[adapter_name]
    if adapter_name in layer.lora_noise:
        names["lora_moe_gating.w_noise"] = layer.lora_noise[adapter_name]
    experts = zip(layer.lora_expert_weight[adapter_name], layer.lora_expert_bias[adapter_name], strict=True)
    for i, (weight, bias) in enumerate(experts):
        names[f"lora_moe_experts.{i}.0.weight"] = weight
        names[f"lora_moe_experts.{i}.0.bias"] = bias
    return names
