"""SAM's attention without its bias tensor: exact, and fused.

SAM adds `rel_h[q, kh] + rel_w[q, kw]` to every score. The usual code materialises that sum: heads × 4096 × 4096 values
per image and global block. But the sum is a product of vectors too: widen each query by its relative terms, and each
key by the one-hot codes of its row and column,

    q' = [q / √d, rel_h(q), rel_w(q)]        k' = [k, onehot(row), onehot(column)]

then `softmax(q' · k'ᵀ) v` is the same, and a fused kernel that never stores the scores computes it, in training too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionAttention, SamVisionSdpaAttention


def use_fused_attention(model: nn.Module) -> None:
    """Let every attention layer of SAM's vision encoder in `model` compute in the widened form; weights stay."""
    for module in model.modules():
        if type(module) in (SamVisionAttention, SamVisionSdpaAttention):
            module.__class__ = SamVisionFusedAttention


class SamVisionFusedAttention(SamVisionAttention):
    """transformers' attention of the vision encoder, with another forward pass; attention weights are not returned."""

    def forward(self, hidden_states: Tensor, output_attentions: bool | None = None) -> tuple[Tensor, None]:
        """Attend within each (h, w) grid of (b, h, w, c) tokens; the result has the same shape."""
        b, h, w, c = hidden_states.shape
        d = c // self.num_attention_heads
        qkv = self.qkv(hidden_states).view(b, h * w, 3, self.num_attention_heads, d)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        if self.use_rel_pos:
            query, key = self._widen(query, key, h, w)
            if query.device.type == "cpu":  # its fused kernel wants all three equally wide
                value = F.pad(value, (0, query.shape[-1] - d))
        dropout = self.dropout if self.training else 0.0
        scale = 1.0 if self.use_rel_pos else self.scale
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)
        return self.proj(attended[..., :d].transpose(1, 2).reshape(b, h, w, c)), None

    def _widen(self, query: Tensor, key: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
        """Append the relative terms to queries, and the codes of row and column to keys; both (b, heads, n, ·)."""
        grid = query.unflatten(2, (h, w))  # SAM's relative terms are those of unscaled queries
        rows = torch.einsum("bnhwd,hkd->bnhwk", grid, _relative(self.rel_pos_h, h).to(query.dtype))
        columns = torch.einsum("bnhwd,wkd->bnhwk", grid, _relative(self.rel_pos_w, w).to(query.dtype))
        # zeros up to a multiple of 8, which the kernels of GPUs want
        fill = query.new_zeros(()).expand(*query.shape[:3], -(query.shape[-1] + h + w) % 8)
        query = torch.cat([query * self.scale, rows.flatten(2, 3), columns.flatten(2, 3), fill], dim=-1)
        codes = torch.cat(
            [
                torch.eye(h, dtype=key.dtype, device=key.device).repeat_interleave(w, dim=0),
                torch.eye(w, dtype=key.dtype, device=key.device).repeat(h, 1),
            ],
            dim=-1,
        )
        return query, torch.cat([key, codes.expand(*key.shape[:2], -1, -1), fill], dim=-1)


def _relative(table: Tensor, size: int) -> Tensor:
    """(size, size, d) embedding of each query's distance to each key, from a table of distances (2·size − 1, d).

    A table of another length is interpolated, as SAM does.
    """
    if len(table) != 2 * size - 1:
        table = F.interpolate(table.T[None], 2 * size - 1, mode="linear")[0].T
    positions = torch.arange(size, device=table.device)
    return table[positions[:, None] - positions[None, :] + size - 1]
