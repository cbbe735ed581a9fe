"""TinyViT-5M as MobileSAM's image encoder.

Zhang et al., *Faster Segment Anything*, 2023, arXiv 2306.14289; Wu et al., *TinyViT*, ECCV 2022, arXiv 2207.10666. A
convolutional stem, then three stages of blocks: windowed attention, a depth-wise convolution, an MLP. It is laid out as
transformers lays out SAM's own encoder (`patch_embed`, `layers`, `neck`; in a block `attn.qkv`, `attn.proj`,
`mlp.lin1`, `mlp.lin2`), so whatever works on one works on the other. Batch norms are folded into the convolutions.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.initialization import zeros_
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.sam.modeling_sam import (
    SamPreTrainedModel,
    SamVisionEncoderOutput,
    SamVisionLayer,
    SamVisionNeck,
)


class TinyVitConfig(PreTrainedConfig):
    """Architecture of the encoder; the defaults are MobileSAM's.

    Args:
        hidden_sizes: Channels of the four stages; the first one is convolutional, the others attend.
        depths: Blocks of each stage.
        num_attention_heads: Of the three stages that attend.
        window_sizes: Sides in tokens of their attention windows.
        expand_ratio: Hidden channels of the first stage's blocks, as a multiple.
        mlp_ratio: Hidden channels of the MLPs, as a multiple.
        image_size: Side of the input in pixels, a multiple of `patch_size`.
        patch_size: Pixels of one cell of the output grid; follows from the strides, so it cannot be chosen.
        output_channels: Channels of the embedding.
        num_pos_feats: Half the channels of the decoder's positional encoding.
    """

    model_type = "tiny_vit_sam"
    base_config_key = "vision_config"

    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 160, 320)
    depths: list[int] | tuple[int, ...] = (2, 2, 6, 2)
    num_attention_heads: list[int] | tuple[int, ...] = (4, 5, 10)
    window_sizes: list[int] | tuple[int, ...] = (7, 14, 7)
    expand_ratio: int = 4
    mlp_ratio: int = 4
    image_size: int = 1024
    patch_size: int = 16
    output_channels: int = 256
    num_pos_feats: int = 128
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        # the names that SAM's neck and positional encoding ask for
        self.hidden_size = self.hidden_sizes[-1]
        self.scale = self.hidden_size // 2
        super().__post_init__(**kwargs)


class TinyVitEncoder(SamPreTrainedModel):
    """Pixels (b, 3, S, S) to an embedding (b, output_channels, S/16, S/16).

    Attributes:
        patch_embed: The convolutional stem.
        layers: All blocks of attention, in order; the last one of a stage also changes grid and channels.
        neck: SAM's.
        pos_embed: None: the relative positions of the windows are the only ones.
    """

    config_class = TinyVitConfig
    config: TinyVitConfig
    _no_split_modules = ["TinyVitLayer"]  # noqa: RUF012 - as transformers declares it

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__(config)
        self.image_size = config.image_size
        self.pos_embed = None
        self.patch_embed = TinyVitStem(config)
        self.layers = nn.ModuleList()
        for stage, depth in enumerate(config.depths[1:], start=1):
            for block in range(depth):
                self.layers.append(TinyVitLayer(config, stage, last=block == depth - 1))
        self.neck = SamVisionNeck(config)
        self.gradient_checkpointing = False
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, TinyVitAttention):
            zeros_(module.attention_biases)

    def get_input_embeddings(self) -> nn.Module:
        """The stem."""
        return self.patch_embed

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> SamVisionEncoderOutput:
        """Encode (b, 3, S, S) normalised pixels, S any multiple of 16; only `last_hidden_state` is returned."""
        states = self.patch_embed(pixel_values)
        for layer in self.layers:
            states = layer(states)
        return SamVisionEncoderOutput(last_hidden_state=self.neck(states))


class TinyVitStem(nn.Module):
    """Pixels (b, 3, S, S) to tokens (b, S/8, S/8, c): two strided convolutions, the first stage, one more stride."""

    def __init__(self, config: TinyVitConfig) -> None:
        super().__init__()
        width, after = config.hidden_sizes[:2]
        self.conv1 = nn.Conv2d(3, width // 2, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width // 2, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(TinyVitConvBlock(width, config.expand_ratio) for _ in range(config.depths[0]))
        self.downsample = TinyVitDownsample(width, after, stride=2)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """See the class."""
        maps = self.conv2(F.gelu(self.conv1(pixel_values)))
        for block in self.blocks:
            maps = block(maps)
        return self.downsample(maps).permute(0, 2, 3, 1)


class TinyVitConvBlock(nn.Module):
    """Inverted bottleneck (MBConv) on (b, c, h, w): widen, convolve each channel, narrow, add."""

    def __init__(self, width: int, expand_ratio: int) -> None:
        super().__init__()
        hidden = width * expand_ratio
        self.conv1 = nn.Conv2d(width, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.conv3 = nn.Conv2d(hidden, width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """See the class."""
        inner = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(maps)))))
        return F.gelu(maps + inner)


class TinyVitDownsample(nn.Module):
    """(b, c, h, w) to (b, after, h/stride, w/stride), sides rounded up."""

    def __init__(self, width: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, after, 1)
        self.conv2 = nn.Conv2d(after, after, 3, stride=stride, padding=1, groups=after)
        self.conv3 = nn.Conv2d(after, after, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """See the class."""
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(maps)))))


class TinyVitLayer(GradientCheckpointingLayer):
    """One block on (b, h, w, c): attention in windows, a depth-wise convolution over the whole grid, an MLP."""

    # SAM's own: zeros to the right and below, cut off again afterwards
    window_partition = SamVisionLayer.window_partition
    window_unpartition = SamVisionLayer.window_unpartition

    def __init__(self, config: TinyVitConfig, stage: int, last: bool) -> None:
        super().__init__()
        width, hidden = config.hidden_sizes[stage], config.hidden_sizes[stage] * config.mlp_ratio
        self.window_size = config.window_sizes[stage - 1]
        self.layer_norm1 = nn.LayerNorm(width)
        self.attn = TinyVitAttention(width, config.num_attention_heads[stage - 1], self.window_size)
        self.local_conv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.layer_norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(lin1=nn.Linear(width, hidden), act=nn.GELU(), lin2=nn.Linear(hidden, width))
        )
        self.downsample = None
        if last and stage + 1 < len(config.hidden_sizes):
            # MobileSAM keeps the grid before its last stage, where TinyViT halves it
            stride = 2 if stage + 2 < len(config.hidden_sizes) else 1
            self.downsample = TinyVitDownsample(width, config.hidden_sizes[stage + 1], stride)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The same shape, or that of the next stage."""
        windows, padded = self.window_partition(hidden_states, self.window_size)
        # the norm comes after the padding, unlike SAM's: padded tokens attend as the norm's bias
        windows = self.attn(self.layer_norm1(windows))
        size = hidden_states.shape[1:3]
        hidden_states = hidden_states + self.window_unpartition(windows, self.window_size, padded, size)
        maps = self.local_conv(hidden_states.permute(0, 3, 1, 2))
        hidden_states = maps.permute(0, 2, 3, 1)
        hidden_states = hidden_states + self.mlp(self.layer_norm2(hidden_states))
        if self.downsample is None:
            return hidden_states
        return self.downsample(hidden_states.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class TinyVitAttention(nn.Module):
    """Attention within windows, with a bias for each head and distance.

    `qkv` gives queries, keys and values of all heads in SAM's order, (3, heads, d). `attention_biases` is
    (heads, window²): the bias at distance (|Δrow|, |Δcolumn|) is entry |Δrow| · window + |Δcolumn|.
    """

    def __init__(self, width: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.num_attention_heads = num_heads
        self.window_size = window_size
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window_size**2))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Attend within each (b, window, window, c); the result has the same shape."""
        b, h, w, c = hidden_states.shape
        qkv = self.qkv(hidden_states).view(b, h * w, 3, self.num_attention_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=self._bias().to(query.dtype))
        return self.proj(attended.transpose(1, 2).reshape(b, h, w, c))

    def _bias(self) -> Tensor:
        """(1, heads, n, n) of each query and key, n = window²."""
        positions = torch.arange(self.window_size, device=self.attention_biases.device)
        distance = (positions[:, None] - positions).abs()
        index = distance[:, None, :, None] * self.window_size + distance[None, :, None, :]
        return self.attention_biases[:, index.flatten(2).flatten(0, 1)][None]
