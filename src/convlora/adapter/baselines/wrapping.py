"""What the baselines that wrap single modules share: a PEFT configuration, a layer and a tuner without the method."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

CHANNELS_FIRST = (nn.Conv2d, nn.ConvTranspose2d)
"""Modules whose channels are axis 1; those of others are the last axis, unless they say `data_format`."""


@dataclass
class WrappingConfig(PeftConfig):
    """Which modules a method wraps.

    Args:
        target_modules: Names of modules, whole or their ends.
        exclude_modules: Names among them that are left alone.
        layers_to_transform: Numbers of the blocks that are adapted; default all.
        modules_to_save: Names of modules that are trained whole and saved with the adapter.
    """

    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Names of the modules to wrap."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Names that are left alone."})
    layers_to_transform: list[int] | int | None = field(default=None, metadata={"help": "Blocks; default all."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules that are trained whole."})


class WrappingLayer(nn.Module, BaseTunerLayer):
    """A frozen module, and what a method adds behind it.

    A method names its containers in `adapter_layer_names`, makes them in `__init__`, fills them in `add_weights` and
    uses them in `adapt`.
    """

    adaptable: ClassVar[tuple[type[nn.Module], ...]]
    """Types of modules that the method can wrap."""

    # What PEFT's BaseTunerLayer sets up, for the type checker
    adapter_layer_names: tuple[str, ...]
    base_layer: Any
    active_adapters: list[str]
    disable_adapters: bool
    get_base_layer: Callable[[], Any]
    set_adapter: Callable[..., None]
    _cast_input_dtype: Callable[[Tensor, torch.dtype], Tensor]
    _move_adapter_to_device_of_base_layer: Callable[..., None]

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._active_adapter = adapter_name

    def add_weights(self, adapter_name: str, config: Any) -> None:
        """Fill the containers for a new adapter that does nothing yet."""
        raise NotImplementedError

    def adapt(self, adapter_name: str, output: Tensor) -> Tensor:
        """What the adapter makes of the base module's output, of its shape."""
        raise NotImplementedError

    def update_layer(self, adapter_name: str, config: PeftConfig) -> None:
        """Add an adapter (PEFT's hook)."""
        self.add_weights(adapter_name, config)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The base module's output, changed by each active adapter in turn; dtype and shape stay."""
        output: Tensor = self.base_layer(*args, **kwargs)
        if self.disable_adapters:
            return output
        for name in self.active_adapters:
            if name in getattr(self, self.adapter_layer_names[0]):
                output = self.adapt(name, output).to(output.dtype)
        return output

    def along_channels(self, vector: Tensor, output: Tensor) -> Tensor:
        """A vector with one value a channel, shaped so that it broadcasts over the base module's output."""
        base = self.get_base_layer()
        first = isinstance(base, CHANNELS_FIRST) or getattr(base, "data_format", "") == "channels_first"
        return vector.view(-1, *[1] * (output.dim() - 2)) if first else vector

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse."""
        raise ValueError(
            f"{type(self).__name__} stays beside the base weights and is not merged into them. Keep the adapter, or "
            "drop it with `unload()`."
        )

    def unmerge(self) -> None:
        """Nothing is ever merged, so there is nothing to undo."""
        return


class WrappingModel(BaseTuner):
    """Wraps each target module in the method's layer; made by `peft.get_peft_model`."""

    tuner_layer_cls: type[WrappingLayer]
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}  # no names fit every model

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer_class = self.tuner_layer_cls
        if isinstance(target, layer_class):
            target.update_layer(adapter_name, peft_config)
            return
        if not isinstance(target, layer_class.adaptable):
            allowed = ", ".join(kind.__name__ for kind in layer_class.adaptable)
            raise ValueError(f"{layer_class.__name__} wraps {allowed}, but {current_key} is a {type(target).__name__}.")
        layer = layer_class(target, adapter_name)
        layer.update_layer(adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # PEFT also moves `weight` and `bias`, which encoders, attention layers and modules to save have not
        setattr(parent, child_name, new_module)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        # PEFT looks for the name at the end of a key, where a container holds layers; ours may hold whole networks
        own, found = re.subn(rf"(\.{cls.prefix}\w+)\.{re.escape(adapter_name)}(?=\.|$)", r"\1", key, count=1)
        return own if found else str(super()._remove_adapter_name_from_key(key, adapter_name))

    def _check_merge_allowed(self) -> None:
        next(module for module in self.modules() if isinstance(module, WrappingLayer)).merge()
