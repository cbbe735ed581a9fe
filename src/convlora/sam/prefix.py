"""The encoder in two parts: the frozen blocks before the first trained one, and the rest.

The frozen part gives the same answer for the same pixels, so training can keep it (`convlora.training.prefix_cache`).
"""

from __future__ import annotations

from torch import Tensor
from transformers.models.sam.modeling_sam import SamVisionEncoder


def frozen_blocks(encoder: SamVisionEncoder) -> int:
    """Number of blocks before the first with a trainable parameter; all of them if the encoder is frozen.

    0 if something is trained that is neither in a block nor in the neck: the patch embedding, or a part that a
    method put beside the blocks.
    """
    behind = {id(parameter) for part in (*encoder.layers, encoder.neck) for parameter in part.parameters()}
    if any(parameter.requires_grad and id(parameter) not in behind for parameter in encoder.parameters()):
        return 0
    for i, layer in enumerate(encoder.layers):
        if any(parameter.requires_grad for parameter in layer.parameters()):
            return i
    return len(encoder.layers) if not any(p.requires_grad for p in encoder.neck.parameters()) else 0


def encode_prefix(encoder: SamVisionEncoder, pixel_values: Tensor, blocks: int) -> Tensor:
    """What the first `blocks` blocks make of (b, 3, S, S) pixels.

    Returns:
        (b, h, w, c) tokens; or, after all blocks, the embedding (b, channels, h, w) behind the neck.
    """
    states = encoder.patch_embed(pixel_values)
    if encoder.pos_embed is not None:
        states = states + encoder.pos_embed
    for layer in encoder.layers[:blocks]:
        states = layer(states)
    return encoder.neck(states) if blocks == len(encoder.layers) else states


def encode_rest(encoder: SamVisionEncoder, states: Tensor, blocks: int) -> Tensor:
    """The embedding (b, channels, h, w) from what `encode_prefix` gave for the same `blocks`."""
    if blocks == len(encoder.layers):
        return states
    for layer in encoder.layers[blocks:]:
        states = layer(states)
    return encoder.neck(states)
