"""Which parameters of a tuned model belong to the method, and which to the base model."""

from __future__ import annotations

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn


def added_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """What a PEFT method added to a model, by name: adapters, and the trained copies of modules that are tuned whole.

    It is found by structure, as PEFT itself does, so every method is known: whatever a tuner or a wrapper holds beside
    the module that it wraps. Empty for a model without an adapter.
    """
    added = {}
    for name, module in model.named_modules():
        wrapped = _wrapped(module)
        if wrapped is not None:
            base = {id(parameter) for parameter in wrapped.parameters()}
            added.update({f"{name}.{key}": p for key, p in module.named_parameters() if id(p) not in base})
    return added


def base_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of the base model by their own names, whether or not it wears adapters."""
    added = {id(parameter) for parameter in added_parameters(model).values()}
    return {
        name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".original_module", ""): parameter
        for name, parameter in model.named_parameters()
        if id(parameter) not in added
    }


def _wrapped(module: nn.Module) -> nn.Module | None:
    wrapped: nn.Module | None = None
    if isinstance(module, BaseTuner):
        wrapped = module.model
    elif isinstance(module, AuxiliaryTrainingWrapper):
        wrapped = module.original_module
    elif isinstance(module, BaseTunerLayer):
        wrapped = module.base_layer
    return wrapped
