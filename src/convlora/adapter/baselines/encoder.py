"""What the baselines that take part in SAM's whole vision encoder share."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from peft import PeftConfig
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionEncoder, SamVisionEncoderOutput

from convlora.adapter.baselines.wrapping import WrappingLayer, WrappingModel


class EncoderLayer(WrappingLayer):
    """SAM's frozen vision encoder, and what a method does beside its blocks; other attributes are the encoder's.

    Several active adapters add up.
    """

    adaptable = (SamVisionEncoder,)

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> Any:
        """The encoder's output for (b, 3, H, W) pixels: `last_hidden_state` (b, channels, h, w)."""
        names = [name for name in self.active_adapters if name in getattr(self, self.adapter_layer_names[0])]
        if self.disable_adapters or not names:
            return self.base_layer(pixel_values, **kwargs)
        return SamVisionEncoderOutput(last_hidden_state=self.encode(pixel_values, names))

    def encode(self, pixel_values: Tensor, names: list[str]) -> Tensor:
        """The embedding (b, channels, h, w) with the adapters of these names."""
        raise NotImplementedError

    def embed(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Patch embeddings without, and with, their absolute positions; both (b, h, w, c)."""
        encoder = self.base_layer
        patches = encoder.patch_embed(pixel_values)
        return patches, patches if encoder.pos_embed is None else patches + encoder.pos_embed

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: a network beside the encoder is no change of its weights."""
        raise ValueError(
            f"{type(self).__name__} cannot be merged into the base weights: it is a network of its own, and what it "
            "adds depends on the image. Keep the adapter, or use `unload()` to drop it."
        )

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module) -> tuple[torch.device, torch.dtype]:
        parameter = next(base_layer.parameters())  # PEFT asks for `weight`, which an encoder has not
        return parameter.device, parameter.dtype

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":  # while it is copied or unpickled: there is none yet
                raise
            return getattr(self.base_layer, name)


class EncoderModel(WrappingModel):
    """Wraps the vision encoder of a SAM."""

    target_module_mapping: ClassVar = {"sam": ["vision_encoder"], "sam_segmentation": ["vision_encoder"]}

    @staticmethod
    def _check_target_module_exists(peft_config: PeftConfig, key: str) -> Any:
        whole = copy.copy(peft_config)
        whole.layers_to_transform = None  # these are numbers of blocks inside the target, not of targets
        return WrappingModel._check_target_module_exists(whole, key)


def chosen_blocks(blocks: list[int] | int | None, count: int) -> list[int]:
    """Numbers of the blocks that `layers_to_transform` names, in order; None are all.

    Raises:
        ValueError: It names a block that is not there, or none.
    """
    if blocks is None:
        return list(range(count))
    chosen = sorted({blocks} if isinstance(blocks, int) else set(blocks))
    if not chosen or chosen[0] < 0 or chosen[-1] >= count:
        raise ValueError(f"layers_to_transform={blocks}: this encoder has blocks 0 to {count - 1}; name some of them.")
    return chosen


def initialise_linear(module: nn.Module) -> None:
    """Draw a linear layer as those of vision transformers are; leave other modules alone."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
