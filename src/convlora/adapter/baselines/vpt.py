"""Visual prompt tuning, deep: learned tokens in every block. Jia et al., ECCV 2022, arXiv 2203.12119."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from peft import PeftConfig
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionAttention

from convlora.adapter.attention import fused_attention
from convlora.adapter.baselines.wrapping import WrappingConfig, WrappingLayer, WrappingModel

PEFT_TYPE = "VPT"
_PATCH_VALUES = 3 * 16 * 16  # of SAM's patch

# Deep VPT (section 3.2 of the paper), block i being L_i: [x_i, _] = L_i([x_{i-1}, P_{i-1}]). What a block makes of its
# prompts is thrown away; the next block gets prompts of its own. Within a block, tokens meet in the attention alone:
# norms, projection and MLP work on each token by itself. So prompts act on x through their keys and values and in no
# other way; their queries, and everything behind their attention, need not be computed. In a windowed block the prompts
# join every window, as the paper has it for Swin. Having no place in the grid, they get no relative position.


@dataclass
class VptConfig(WrappingConfig):
    """Configuration of deep VPT for SAM; `target_modules` are attention layers of the vision encoder, default all.

    Args:
        num_prompts: Prompts of each block. The default gives, on ViT-H with the mask decoder, 3,997,056 trained
            parameters: 0.62 % of SAM, as in the Conv-LoRA paper, and what LoRA of rank 3 has. 11 prompts give 0.62 %
            too, 10 and 13 do not.
    """

    num_prompts: int = field(default=12, metadata={"help": "Prompts of each block."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        if not isinstance(self.num_prompts, int) or self.num_prompts < 1:
            raise ValueError(f"VptConfig: num_prompts={self.num_prompts!r} must be an integer of at least 1")


class VptAttention(WrappingLayer):
    """Attention in which every token sees its grid and the prompts; several active adapters put theirs together."""

    adapter_layer_names = ("vpt_prompts",)
    adaptable = (SamVisionAttention,)

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__(base_layer, adapter_name)
        self.vpt_prompts = nn.ParameterDict()
        self.norm: tuple[nn.Module, ...] = ()  # the block's, in front of attention; a tuple, as it stays the block's

    def add_weights(self, adapter_name: str, config: Any) -> None:
        """Draw prompts uniformly, with the variance of Xavier for a patch and its embedding, as the paper's code."""
        channels = self.base_layer.qkv.in_features
        bound = math.sqrt(6 / (_PATCH_VALUES + channels))
        self.vpt_prompts[adapter_name] = nn.Parameter(torch.empty(config.num_prompts, channels).uniform_(-bound, bound))

    def forward(self, hidden_states: Tensor, output_attentions: bool | None = None) -> tuple[Tensor, Tensor | None]:
        """Attend within each (h, w) grid of normalised (b, h, w, c) tokens, and to the prompts; same shape."""
        names = [name for name in self.active_adapters if name in self.vpt_prompts]
        if self.disable_adapters or not names:
            return self.base_layer(hidden_states, output_attentions=output_attentions)
        prompts = torch.cat([self.vpt_prompts[name] for name in names]).to(hidden_states.dtype)
        return fused_attention(self.base_layer, hidden_states, self.norm[0](prompts)), None

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: prompts are no weights."""
        raise ValueError(
            "VPT cannot be merged into the base weights: its prompts are tokens beside those of the image, which no "
            "weight matrix holds. Keep the adapter, or use `unload()` to drop it."
        )

    def _get_base_layer_device_and_dtype(self, base_layer: Any) -> tuple[torch.device, torch.dtype]:
        weight = base_layer.qkv.weight  # PEFT asks for `weight`, which an attention layer has not
        return weight.device, weight.dtype


class VptModel(WrappingModel):
    """Deep VPT on a SAM; made by `peft.get_peft_model`."""

    prefix = "vpt_"
    tuner_layer_cls = VptAttention
    target_module_mapping: ClassVar = {"sam": ["attn"], "sam_segmentation": ["attn"]}

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super()._create_and_replace(peft_config, adapter_name, target, target_name, parent, *args, **kwargs)
        getattr(parent, target_name).norm = (parent.layer_norm1,)
