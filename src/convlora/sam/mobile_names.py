"""Names and layout of MobileSAM's official weights, and of ours."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
from torch import Tensor

from convlora.sam.tiny_vit import TinyVitConfig

_NORM_EPS = 1e-5  # of torch's BatchNorm2d
_UNUSED = ("image_encoder.head.", "image_encoder.norm_head.")  # TinyViT's classifier, which MobileSAM leaves idle

_RULES = (
    (r"^image_encoder\.patch_embed\.seq\.0\.c\.", "vision_encoder.patch_embed.conv1."),
    (r"^image_encoder\.patch_embed\.seq\.2\.c\.", "vision_encoder.patch_embed.conv2."),
    (r"^image_encoder\.layers\.0\.", "vision_encoder.patch_embed."),
    (r"^image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"^image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"^image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"^image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"^image_encoder\.", "vision_encoder."),
    (r"\.(conv[123]|local_conv)\.c\.", r".\1."),
    (r"\.attn\.norm\.", ".layer_norm1."),
    (r"\.mlp\.norm\.", ".layer_norm2."),
    (r"\.mlp\.fc([12])\.", r".mlp.lin\1."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$", "shared_image_embedding.positional_embedding"),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.0\.", r"\1.proj_in."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.1\.", r"\1.layers.0."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d)\.layers\.2\.", r"\1.proj_out."),
    (r"\.norm([1234])\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
)


def fold_batch_norms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official weights with every batch norm of the image encoder folded into its convolution: exact in evaluation.

    `NAME.c.weight` and `NAME.bn.*` become `NAME.c.weight` and `NAME.c.bias`; everything else stays.

    Raises:
        KeyError: A batch norm is incomplete.
    """
    folded = {name: value for name, value in state.items() if ".bn." not in name}
    for bn in (name.removesuffix(".weight") for name in state if name.endswith(".bn.weight")):
        weight, bias, mean, variance = (
            state[f"{bn}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / (variance + _NORM_EPS).sqrt()
        conv = bn.removesuffix(".bn") + ".c"
        kernel = state[f"{conv}.weight"]
        folded[f"{conv}.weight"] = (kernel * scale.view(-1, 1, 1, 1)).to(kernel.dtype)
        folded[f"{conv}.bias"] = (bias - mean * scale).to(kernel.dtype)
    return folded


def rename(state: dict[str, Tensor], vision: TinyVitConfig) -> dict[str, Tensor]:
    """Official weights without batch norms, under the names of `MobileSamModel`'s parameters."""
    ours: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith(_UNUSED):
            continue
        name = re.sub(r"^image_encoder\.layers\.([1-3])\.(blocks\.\d+|downsample)\.", partial(_layer, vision), name)
        for pattern, replacement in _RULES:
            name = re.sub(pattern, replacement, name)
        ours[name] = value
    return ours


def _layer(vision: TinyVitConfig, official: re.Match[str]) -> str:
    """Here blocks are counted through all stages, and what follows a stage belongs to its last block."""
    stage, inner = int(official[1]), official[2]
    before = sum(vision.depths[1:stage])
    if inner == "downsample":
        return f"vision_encoder.layers.{before + vision.depths[stage] - 1}.downsample."
    return f"vision_encoder.layers.{before + int(inner.removeprefix('blocks.'))}."


def order_by_kind(state: dict[str, Tensor], vision: TinyVitConfig) -> dict[str, Tensor]:
    """Rows of `qkv` layers, under our names, from TinyViT's order (heads, 3, d) to SAM's (3, heads, d)."""
    heads = np.repeat(vision.num_attention_heads, vision.depths[1:]).tolist()
    ordered = dict(state)
    for i, count in enumerate(heads):
        for name in (f"vision_encoder.layers.{i}.attn.qkv.{kind}" for kind in ("weight", "bias")):
            ordered[name] = state[name].unflatten(0, (count, 3, -1)).transpose(0, 1).flatten(0, 2).contiguous()
    return ordered
