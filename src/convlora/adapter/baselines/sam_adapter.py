"""SAM-Adapter: features of the image itself, shown to every block. Chen et al., 2023, arXiv 2304.09148."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.sam.modeling_sam import SamVisionConfig

from convlora.adapter.baselines.encoder import EncoderLayer, EncoderModel, chosen_blocks, initialise_linear
from convlora.adapter.baselines.wrapping import WrappingConfig

PEFT_TYPE = "SAM_ADAPTER"


@dataclass
class SamAdapterConfig(WrappingConfig):
    """Configuration of SAM-Adapter; `target_modules` is the vision encoder, `layers_to_transform` are its blocks.

    With encoder width c, bottleneck w, L blocks and a patch of p pixels, the trained parameters are, for RGB,

        (c·w + w) + (3·p²·w + w) + L · (w² + w) + (w·c + c)

    The defaults give, on ViT-H (w = 80) with the mask decoder, 3,980,576: 0.62 % of SAM.

    Args:
        reduction: The bottleneck is so many times narrower than the encoder.
        frequency_ratio: Share τ of the spectrum, around frequency 0, that the high-pass filter takes out.
    """

    reduction: int = field(default=16, metadata={"help": "How many times narrower than the encoder the bottleneck is."})
    frequency_ratio: float = field(default=0.25, metadata={"help": "Share of low frequencies that is filtered out."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        if not isinstance(self.reduction, int) or self.reduction < 1:
            raise ValueError(f"SamAdapterConfig: reduction={self.reduction!r} must be an integer of at least 1")
        if not 0 <= self.frequency_ratio < 1:
            raise ValueError(f"SamAdapterConfig: frequency_ratio={self.frequency_ratio!r} must be at least 0, below 1")


class PromptGenerator(nn.Module):
    """`P^i = MLP_up(GELU(MLP_tune^i(F)))`, equation 1 of the paper: MLP_tune^i is a block's own, MLP_up is shared.

    The task's information `F = F_pe + F_hfc` (equation 2 with weights 1) comes from the frozen patch embeddings and
    from the high frequencies of the image. MLP_up starts at 0, so tuning starts at the base model; the paper does not
    say how it starts.
    """

    def __init__(
        self, encoder: SamVisionConfig, blocks: list[int], config: SamAdapterConfig, channels: int | None = None
    ) -> None:
        super().__init__()
        width = max(1, encoder.hidden_size // config.reduction)
        patch = encoder.patch_size
        self.frequency_ratio = config.frequency_ratio
        self.embedding = nn.Linear(encoder.hidden_size, width)
        self.frequencies = nn.Conv2d(channels or encoder.num_channels, width, kernel_size=patch, stride=patch)
        self.tune = nn.ModuleDict({str(block): nn.Linear(width, width) for block in blocks})
        self.up = nn.Linear(width, encoder.hidden_size)
        self.apply(initialise_linear)
        nn.init.zeros_(self.up.weight)

    def features(self, pixel_values: Tensor, patches: Tensor) -> Tensor:
        """The task's information F (b, h, w, ·) of (b, 3, H, W) pixels and their patch embeddings (b, h, w, c)."""
        dtype = self.up.weight.dtype
        details = self.frequencies(high_frequencies(pixel_values, self.frequency_ratio).to(dtype))
        features: Tensor = self.embedding(patches.to(dtype)) + details.movedim(1, -1)
        return features

    def add_prompt(self, block: int, states: Tensor, features: Tensor) -> Tensor:
        """A block's input (b, h, w, c) with its prompt; unchanged for a block that has none."""
        if str(block) not in self.tune:
            return states
        prompt: Tensor = self.up(F.gelu(self.tune[str(block)](features)))
        return states + prompt.to(states.dtype)


def high_frequencies(images: Tensor, ratio: float) -> Tensor:
    """Magnitude of what is left of (b, c, H, W) images without their low frequencies, per channel; float32 or float64.

    The filter takes out the square around frequency 0 that covers `ratio` of the spectrum: |f| < √ratio / 2 cycles per
    pixel on both axes. The paper refers to Liu et al., *Explicit Visual Prompting*, CVPR 2023, for it.
    """
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    limit = ratio**0.5 / 2
    rows, columns = (torch.fft.fftfreq(size, device=images.device).abs() < limit for size in images.shape[-2:])
    low = rows[:, None] & columns[None, :]
    spectrum = torch.fft.fft2(images).masked_fill(low, 0)
    return torch.fft.ifft2(spectrum).real.abs()


class SamAdapterLayer(EncoderLayer):
    """The encoder, with a prompt added to each block's input."""

    adapter_layer_names = ("sam_adapter_prompts",)

    def __init__(self, base_layer: nn.Module, adapter_name: str) -> None:
        super().__init__(base_layer, adapter_name)
        self.sam_adapter_prompts = nn.ModuleDict()

    def add_weights(self, adapter_name: str, config: Any) -> None:
        """Add a generator of prompts."""
        blocks = chosen_blocks(config.layers_to_transform, len(self.base_layer.layers))
        self.sam_adapter_prompts[adapter_name] = PromptGenerator(
            self.base_layer.config, blocks, config, self.base_layer.patch_embed.num_channels
        )

    def encode(self, pixel_values: Tensor, names: list[str]) -> Tensor:
        """The embedding (b, channels, h, w) of (b, 3, H, W) pixels."""
        generators: list[Any] = [self.sam_adapter_prompts[name] for name in names]
        patches, states = self.embed(pixel_values)
        features = [generator.features(pixel_values, patches) for generator in generators]
        for i, block in enumerate(self.base_layer.layers):
            for generator, feature in zip(generators, features, strict=True):
                states = generator.add_prompt(i, states, feature)
            states = block(states)
        embedding: Tensor = self.base_layer.neck(states)
        return embedding


class SamAdapterModel(EncoderModel):
    """SAM-Adapter on a SAM; made by `peft.get_peft_model`."""

    prefix = "sam_adapter_"
    tuner_layer_cls = SamAdapterLayer
