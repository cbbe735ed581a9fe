"""A small SAM with random weights, in the format of the checkpoints that users name."""

from __future__ import annotations

import torch
from torch import nn
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig


def small_config(size=64):
    vision = SamVisionConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=size,
        patch_size=8,
        window_size=3,
        global_attn_indexes=[1],
        output_channels=32,
        num_pos_feats=16,
        mlp_dim=48,
    )
    prompt = SamPromptEncoderConfig(
        hidden_size=32, image_size=size, patch_size=8, image_embedding_size=size // 8, mask_input_channels=4
    )
    decoder = SamMaskDecoderConfig(hidden_size=32, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=32)
    return SamConfig(
        vision_config=vision.to_dict(), prompt_encoder_config=prompt.to_dict(), mask_decoder_config=decoder.to_dict()
    )


def small_sam(seed=0, **config):
    """A fresh `SamModel` has near-zero vision weights and zero relative positions, so give everything a value."""
    torch.manual_seed(seed)
    model = SamModel(small_config(**config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 or "pos" in name:
                nn.init.normal_(parameter, std=0.2)
    return model
