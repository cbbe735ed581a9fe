"""Another input size: interpolate the positions that a checkpoint learned for its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SamModel
from transformers.models.sam.modeling_sam import SamPatchEmbeddings

from convlora.errors import SettingsError


def resize_positions(sam: SamModel, image_size: int) -> None:
    """Let a SAM take square inputs of another size, in place; at its own size nothing is touched.

    The absolute positions are interpolated (bicubic, antialiased), and the relative ones of the global blocks
    (linear, as SAM itself does when sizes differ). Windowed blocks, all of TinyViT's among them, and the decoder's
    positions know no size.

    Args:
        sam: The model; its configuration is updated too.
        image_size: New side in pixels.

    Raises:
        SettingsError: It is not a positive multiple of the patch.
    """
    vision, prompt = sam.config.vision_config, sam.config.prompt_encoder_config
    patch = vision.patch_size
    if image_size < patch or image_size % patch:
        near = max(1, round(image_size / patch)) * patch
        raise SettingsError(f"image_size={image_size} must be a multiple of the patch, {patch} pixels, such as {near}.")
    if image_size == vision.image_size:
        return
    side, encoder = image_size // patch, sam.vision_encoder
    if encoder.pos_embed is not None:
        encoder.pos_embed = _replaced(encoder.pos_embed, _resize_grid(encoder.pos_embed, side))
    for layer in encoder.layers:
        if layer.window_size == 0 and layer.attn.use_rel_pos:
            for name in ("rel_pos_h", "rel_pos_w"):
                table = getattr(layer.attn, name)
                setattr(layer.attn, name, _replaced(table, _resize_table(table, 2 * side - 1)))
    vision.image_size = prompt.image_size = encoder.image_size = image_size
    prompt.image_embedding_size = side
    if isinstance(encoder.patch_embed, SamPatchEmbeddings):  # TinyViT's stem knows no size
        encoder.patch_embed.image_size = (image_size, image_size)
        encoder.patch_embed.num_patches = side * side
    sam.prompt_encoder.image_embedding_size = (side, side)
    sam.prompt_encoder.input_image_size = image_size
    mark_image_grid(sam)


def mark_image_grid(sam: SamModel) -> None:
    """Note on every linear layer of the encoder's blocks how many tokens an image has: windowed ones cannot see it.

    Conv-LoRA reads it where it works on whole images (`ConvLoraConfig(context="image")`).
    """
    vision = sam.config.vision_config
    side = vision.image_size // vision.patch_size
    for layer in reversed(sam.vision_encoder.layers):
        if getattr(layer, "downsample", None) is not None:  # of TinyViT, behind its attention
            side *= layer.downsample.conv2.stride[0]
        for module in layer.modules():
            if isinstance(module, nn.Linear):
                module.image_grid = (side, side)  # type: ignore[assignment]


def _replaced(parameter: nn.Parameter, values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.to(parameter.dtype), requires_grad=parameter.requires_grad)


@torch.no_grad()
def _resize_grid(positions: Tensor, side: int) -> Tensor:
    """(1, side, side, c) from (1, h, w, c)."""
    channels_first = positions.float().movedim(-1, 1)
    resized = F.interpolate(channels_first, (side, side), mode="bicubic", align_corners=False, antialias=True)
    return resized.movedim(1, -1).contiguous()


@torch.no_grad()
def _resize_table(table: Tensor, length: int) -> Tensor:
    """(length, d) from (l, d): distance 0 stays in the middle, the others are stretched with the grid."""
    resized = F.interpolate(table.float().T[None], length, mode="linear", align_corners=False)
    return resized[0].T.contiguous()
