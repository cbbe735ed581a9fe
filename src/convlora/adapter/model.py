"""The PEFT tuner that puts Conv-LoRA layers into a model."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

from peft.tuners.lora import LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from convlora.adapter.config import ConvLoraConfig
from convlora.adapter.layer import ConvLoraLinear


class ConvLoraModel(LoraModel):
    """Conv-LoRA on any model with `nn.Linear` layers over a token grid; made by `peft.get_peft_model`."""

    tuner_layer_cls = ConvLoraLinear
    target_module_mapping: ClassVar = {"sam": ["qkv"], "sam_segmentation": ["qkv"], "mobile_sam": ["qkv"]}

    @staticmethod
    def _create_new_module(
        lora_config: ConvLoraConfig, adapter_name: str, target: nn.Module, **kwargs: Any
    ) -> ConvLoraLinear:
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if not isinstance(base, nn.Linear):
            raise ValueError(
                f"Conv-LoRA adapts nn.Linear layers over a token grid, but {kwargs.get('target_name')} is a "
                f"{type(base).__name__}. Choose other `target_modules`."
            )
        return ConvLoraLinear(
            target,
            adapter_name,
            config=lora_config,
            r=kwargs["r"],
            lora_alpha=kwargs["lora_alpha"],
            target_name=kwargs.get("target_name", ""),
        )

    def _check_merge_allowed(self) -> None:
        next(module for module in self.modules() if isinstance(module, ConvLoraLinear)).merge()

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: experts are non-linear, so a weighted sum of two adapters is not an adapter."""
        raise ValueError(
            "Conv-LoRA adapters cannot be combined by weight: their experts are not linear. "
            "Activate several at once instead, with `model.base_model.set_adapter([...])`."
        )
