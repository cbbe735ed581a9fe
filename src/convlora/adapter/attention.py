"""SAM's attention without its bias tensor: exact, and fused.

SAM adds `rel_h[q, kh] + rel_w[q, kw]` to every score. The usual code materialises that sum: heads × 4096 × 4096 values
per image and global block. But the sum is a product of vectors too: widen each query by its relative terms, and each
key by the one-hot codes of its row and column,

    q' = [q / √d, rel_h(q), rel_w(q)]        k' = [k, onehot(row), onehot(column)]

then `softmax(q' · k'ᵀ) v` is the same, and a fused kernel that never stores the scores computes it, in training too.
A token without a place in the grid, such as a prompt, is a key whose codes are zero.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.sam.modeling_sam import SamVisionAttention


def fused_attention(layer: SamVisionAttention, hidden_states: Tensor, prompts: Tensor | None = None) -> Tensor:
    """What an attention layer of SAM's vision encoder computes, whichever implementation it is of.

    Args:
        layer: The layer, for its weights.
        hidden_states: (b, h, w, c) tokens; attention stays within each grid.
        prompts: (p, c) tokens that every grid attends to as well. They have no position, and no output.

    Returns:
        (b, h, w, c).
    """
    b, h, w, c = hidden_states.shape
    heads = layer.num_attention_heads
    d = c // heads
    query, key, value = layer.qkv(hidden_states).view(b, h * w, 3, heads, d).permute(2, 0, 3, 1, 4)
    if layer.use_rel_pos:
        query, key = _widen(layer, query, key, h, w)
    if prompts is not None:
        _, prompt_key, prompt_value = layer.qkv(prompts).view(-1, 3, heads, d).permute(1, 2, 0, 3)
        prompt_key = F.pad(prompt_key, (0, key.shape[-1] - d))
        key = torch.cat([key, prompt_key.expand(b, -1, -1, -1)], dim=2)
        value = torch.cat([value, prompt_value.expand(b, -1, -1, -1)], dim=2)
    if query.device.type == "cpu":  # its fused kernel wants all three equally wide
        value = F.pad(value, (0, query.shape[-1] - d))
    dropout = layer.dropout if layer.training else 0.0
    scale = 1.0 if layer.use_rel_pos else layer.scale
    attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)
    projected: Tensor = layer.proj(attended[..., :d].transpose(1, 2).reshape(b, h, w, c))
    return projected


def _widen(layer: SamVisionAttention, query: Tensor, key: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Append the relative terms to queries, and the codes of row and column to keys; both (b, heads, n, ·)."""
    grid = query.unflatten(2, (h, w))  # SAM's relative terms are those of unscaled queries
    rows = torch.einsum("bnhwd,hkd->bnhwk", grid, _relative(layer.rel_pos_h, h).to(query.dtype))
    columns = torch.einsum("bnhwd,wkd->bnhwk", grid, _relative(layer.rel_pos_w, w).to(query.dtype))
    # zeros up to a multiple of 8, which the kernels of GPUs want
    fill = query.new_zeros(()).expand(*query.shape[:3], -(query.shape[-1] + h + w) % 8)
    query = torch.cat([query * layer.scale, rows.flatten(2, 3), columns.flatten(2, 3), fill], dim=-1)
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
