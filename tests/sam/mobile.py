"""MobileSAM for tests: a small one of ours, and one under the official names, written from the papers and naively."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import SamMaskDecoderConfig, SamPromptEncoderConfig

from convlora.sam.mobile import MobileSamConfig, MobileSamModel
from convlora.sam.tiny_vit import TinyVitConfig


def small_vision(size=64):
    return TinyVitConfig(
        hidden_sizes=[8, 12, 16, 24],
        depths=[1, 2, 2, 1],
        num_attention_heads=[2, 4, 3],
        window_sizes=[3, 5, 3],
        image_size=size,
        output_channels=32,
        num_pos_feats=16,
    )


def small_mobile_sam(seed=0, size=64):
    prompt = SamPromptEncoderConfig(hidden_size=32, image_size=size, patch_size=16, mask_input_channels=4)
    decoder = SamMaskDecoderConfig(
        hidden_size=32, mlp_dim=64, num_attention_heads=2, iou_head_hidden_dim=32, layer_norm_eps=1e-5
    )
    torch.manual_seed(seed)
    model = MobileSamModel(
        MobileSamConfig(
            vision_config=small_vision(size).to_dict(),
            prompt_encoder_config=prompt.to_dict(),
            mask_decoder_config=decoder.to_dict(),
        )
    ).eval()
    randomise(model)
    return model


def randomise(model):
    """Give every parameter a value that matters, and keep the scale of the activations."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attention_biases" in name:
                nn.init.normal_(parameter)
            elif parameter.dim() > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))


class ConvNorm(nn.Module):
    def __init__(self, before, after, kernel=1, stride=1, groups=1):
        super().__init__()
        self.c = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(after)
        with torch.no_grad():
            self.bn.running_mean.normal_(std=0.1)
            self.bn.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.bn(self.c(x))


class Inverted(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = ConvNorm(width, 4 * width)
        self.conv2 = ConvNorm(4 * width, 4 * width, 3, groups=4 * width)
        self.conv3 = ConvNorm(4 * width, width)

    def forward(self, x):
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class Merging(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1 = ConvNorm(before, after)
        self.conv2 = ConvNorm(after, after, 3, stride, groups=after)
        self.conv3 = ConvNorm(after, after)

    def forward(self, x):
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class Attention(nn.Module):
    """One window at a time, one head at a time; the bias of each pair is looked up by its offset."""

    def __init__(self, width, heads, window):
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.randn(heads, window * window))
        places = [(i, j) for i in range(window) for j in range(window)]
        offsets = {}  # numbered as they are first met
        self.index = torch.tensor(
            [[offsets.setdefault((abs(a - c), abs(b - d)), len(offsets)) for c, d in places] for a, b in places]
        )

    def forward(self, tokens):
        queries = self.qkv(self.norm(tokens)).chunk(self.heads, dim=-1)
        out = []
        for head, part in enumerate(queries):
            q, k, v = part.chunk(3, dim=-1)
            scores = q @ k.T / q.shape[-1] ** 0.5 + self.attention_biases[head][self.index]
            out.append(scores.softmax(-1) @ v)
        return self.proj(torch.cat(out, dim=-1))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Block(nn.Module):
    def __init__(self, width, heads, window):
        super().__init__()
        self.window = window
        self.attn = Attention(width, heads, window)
        self.local_conv = ConvNorm(width, width, 3, groups=width)
        self.mlp = Mlp(width)

    def forward(self, x):
        _, c, h, w = x.shape
        size = self.window
        padded = F.pad(x, (0, -w % size, 0, -h % size))
        attended = torch.zeros_like(padded)
        for i in range(len(x)):
            for top in range(0, padded.shape[2], size):
                for left in range(0, padded.shape[3], size):
                    window = (i, slice(None), slice(top, top + size), slice(left, left + size))
                    tokens = self.attn(padded[window].reshape(c, -1).T)
                    attended[window] = tokens.T.reshape(c, size, size)
        x = self.local_conv(x + attended[:, :, :h, :w])
        return x + self.mlp(x.movedim(1, -1)).movedim(-1, 1)


class Stage(nn.Module):
    def __init__(self, blocks, downsample):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        if downsample is not None:
            self.downsample = downsample

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.downsample(x) if hasattr(self, "downsample") else x


class ChannelNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight, self.bias = nn.Parameter(1 + 0.1 * torch.randn(width)), nn.Parameter(0.1 * torch.randn(width))

    def forward(self, x):
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class OfficialEncoder(nn.Module):
    """TinyViT under the official names, with batch norms and with the classifier that MobileSAM leaves idle."""

    def __init__(self, config, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        widths, heads, windows = config.hidden_sizes, config.num_attention_heads, config.window_sizes
        half = widths[0] // 2
        self.patch_embed = nn.Module()
        self.patch_embed.seq = nn.Sequential(ConvNorm(3, half, 3, 2), nn.GELU(), ConvNorm(half, widths[0], 3, 2))
        strides = (2, 2, 1)
        stages = []
        for i, depth in enumerate(config.depths):
            made = (Block(widths[i], heads[i - 1], windows[i - 1]) if i else Inverted(widths[0]) for _ in range(depth))
            stages.append(Stage(made, Merging(widths[i], widths[i + 1], strides[i]) if i < 3 else None))
        self.layers = nn.ModuleList(stages)
        self.norm_head, self.head = nn.LayerNorm(widths[-1]), nn.Linear(widths[-1], 1000)
        out = config.output_channels
        self.neck = nn.Sequential(
            nn.Conv2d(widths[-1], out, 1, bias=False),
            ChannelNorm(out),
            nn.Conv2d(out, out, 3, padding=1, bias=False),
            ChannelNorm(out),
        )

    def forward(self, x):
        x = self.patch_embed.seq(x)
        for layer in self.layers:
            x = layer(x)
        return self.neck(x)


def official_decoder_state(seed=0):
    """Random values under the official names of SAM's prompt encoder and mask decoder."""
    shapes = {
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (2, 128),
        "prompt_encoder.not_a_point_embed.weight": (1, 256),
        "prompt_encoder.no_mask_embed.weight": (1, 256),
        "mask_decoder.iou_token.weight": (1, 256),
        "mask_decoder.mask_tokens.weight": (4, 256),
    }
    shapes |= {f"prompt_encoder.point_embeddings.{i}.weight": (1, 256) for i in range(4)}

    def layer(name, *shape):
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]

    layer("prompt_encoder.mask_downscaling.0", 4, 1, 2, 2)
    layer("prompt_encoder.mask_downscaling.1", 4)
    layer("prompt_encoder.mask_downscaling.3", 16, 4, 2, 2)
    layer("prompt_encoder.mask_downscaling.4", 16)
    layer("prompt_encoder.mask_downscaling.6", 256, 16, 1, 1)
    transformer = "mask_decoder.transformer"
    attentions = {f"{transformer}.final_attn_token_to_image": 128}
    for i in range(2):
        block = f"{transformer}.layers.{i}"
        attentions |= {f"{block}.self_attn": 256}
        attentions |= {f"{block}.cross_attn_{way}": 128 for way in ("token_to_image", "image_to_token")}
        layer(f"{block}.mlp.lin1", 2048, 256)
        layer(f"{block}.mlp.lin2", 256, 2048)
        for j in range(1, 5):
            layer(f"{block}.norm{j}", 256)
    layer(f"{transformer}.norm_final_attn", 256)
    for name, width in attentions.items():
        for part in ("q_proj", "k_proj", "v_proj"):
            layer(f"{name}.{part}", width, 256)
        layer(f"{name}.out_proj", 256, width)
    shapes["mask_decoder.output_upscaling.0.weight"] = (256, 64, 2, 2)
    shapes["mask_decoder.output_upscaling.0.bias"] = (64,)
    layer("mask_decoder.output_upscaling.1", 64)
    shapes["mask_decoder.output_upscaling.3.weight"] = (64, 32, 2, 2)
    shapes["mask_decoder.output_upscaling.3.bias"] = (32,)
    heads = {f"output_hypernetworks_mlps.{i}": 32 for i in range(4)} | {"iou_prediction_head": 4}
    for name, out in heads.items():
        for i, width in enumerate((256, 256, out)):
            layer(f"mask_decoder.{name}.layers.{i}", width, 256)
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
