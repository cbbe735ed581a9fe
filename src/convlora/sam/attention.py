"""SAM's vision encoder with the exact, fused attention of `convlora.adapter.attention`."""

from __future__ import annotations

from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionAttention, SamVisionSdpaAttention

from convlora.adapter.attention import fused_attention


def use_fused_attention(model: nn.Module) -> None:
    """Let every attention layer of SAM's vision encoder in `model` compute in the widened form; weights stay."""
    for module in model.modules():
        if type(module) in (SamVisionAttention, SamVisionSdpaAttention):
            module.__class__ = SamVisionFusedAttention


class SamVisionFusedAttention(SamVisionAttention):
    """transformers' attention of the vision encoder, with another forward pass; attention weights are not returned."""

    def forward(self, hidden_states: Tensor, output_attentions: bool | None = None) -> tuple[Tensor, None]:
        """Attend within each (h, w) grid of (b, h, w, c) tokens; the result has the same shape."""
        return fused_attention(self, hidden_states), None
