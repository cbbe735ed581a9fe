"""Small segmenters with a baseline, and the largest one without memory, for tests of the baselines that need a SAM."""

from __future__ import annotations

import copy

import torch
from peft import get_peft_model
from torch import nn
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

from convlora import SamForSemanticSegmentation
from tests.sam.models import small_sam

DECODER = 3_505_536  # parameters of the mask decoder for a binary task, the IoU head left out
SAM = 641_090_864  # of SAM with ViT-H, as transformers counts


def segmenter(seed=0, size=64, dtype=None):
    """64 pixels are 8 × 8 tokens, in windows of 3 × 3 of which the last ones are padded."""
    return SamForSemanticSegmentation.from_sam(small_sam(seed, size=size)).eval().to(dtype)


def tuned(config, trained=True, **kwargs):
    """A segmenter with a baseline; `trained` gives its weights values, so that it does something."""
    torch.manual_seed(1)
    config.modules_to_save = ["mask_decoder"]
    model = get_peft_model(segmenter(**kwargs), config)
    if trained:
        move(model)
    return model.eval()


@torch.no_grad()
def move(model):
    """Change everything that is trained."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)


def pixels(count=2, size=64):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def trainable(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def huge(config):
    """Number of parameters that a baseline trains in SAM with ViT-H, and of all that SAM has."""
    vision = SamVisionConfig(
        hidden_size=1280,
        num_hidden_layers=32,
        num_attention_heads=16,
        mlp_dim=5120,
        global_attn_indexes=[7, 15, 23, 31],
        num_pos_feats=128,
    )
    parts = (vision, SamPromptEncoderConfig(), SamMaskDecoderConfig())
    names = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    with torch.device("meta"):
        sam = SamModel(SamConfig(**{name: part.to_dict() for name, part in zip(names, parts, strict=True)}))
        total = sum(p.numel() for p in sam.parameters())
        config = copy.copy(config)
        config.modules_to_save = ["mask_decoder"]
        model = get_peft_model(SamForSemanticSegmentation.from_sam(sam), config)
    assert all(p.device.type == "meta" for p in model.parameters())
    return sum(p.numel() for p in trainable(model).values()), total
