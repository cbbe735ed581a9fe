"""Images of 1 to 16 channels for an encoder that was trained on RGB.

SAM's own first convolution stays, frozen, and sees three channels; beside it a new kernel sees all of them. The new one
starts at 0, so that tuning starts at SAM itself, bit for bit: in one convolution over all channels the added zeros
would change the order of summation. The other way, a 1 × 1 convolution to three channels in front of SAM, would leave
three numbers a pixel of what the channels hold.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CHANNEL_KERNEL = "channel_kernel"
"""Name of the module that every method trains whole."""


class ChannelConvolution(nn.Module):
    """The first convolution of an encoder, for C channels.

    Args:
        rgb: The encoder's own, of three channels; it is taken over.
        channels: C, 1 to 16.
    """

    def __init__(self, rgb: nn.Conv2d, channels: int) -> None:
        super().__init__()
        self.rgb = rgb
        shape: Any = {"kernel_size": rgb.kernel_size, "stride": rgb.stride, "padding": rgb.padding}
        self.channel_kernel = nn.Conv2d(channels, rgb.out_channels, bias=False, **shape).to(rgb.weight)
        nn.init.zeros_(self.channel_kernel.weight)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(b, C, S, S) normalised channels to the encoder's first features."""
        features: Tensor = self.rgb(as_rgb(pixel_values)) + self.channel_kernel(pixel_values)
        return features


def as_rgb(pixel_values: Tensor) -> Tensor:
    """The three channels (b, 3, H, W) of (b, C, H, W) that an encoder's own convolution sees.

    The first three; of two the first, the mean of both, and the second; one three times: what SAM makes of grey.
    """
    if pixel_values.shape[1] >= 3:
        return pixel_values[:, :3]
    first, last = pixel_values[:, :1], pixel_values[:, -1:]
    return torch.cat([first, (first + last) / 2, last], 1)


def extend_channels(encoder: nn.Module, channels: int) -> None:
    """Let an image encoder of SAM, or MobileSAM, take C channels instead of RGB; in place."""
    embedding: Any = encoder.patch_embed
    name = "projection" if hasattr(embedding, "projection") else "conv1"
    setattr(embedding, name, ChannelConvolution(getattr(embedding, name), channels))
    embedding.num_channels = channels
