"""SAM's mask decoder without prompts, and with it the head of one mask per class."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from transformers import SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder

_SPREAD = 2.0  # norms of the token; of 0, 0.1, 0.5, 1, 2 and 4 the one that segmented best after a short training


class PromptFreeMaskDecoder(SamMaskDecoder):
    """transformers' decoder with `num_masks` mask tokens and hyper-networks, no prompt, and no IoU head.

    The IoU head ranks the answers to an ambiguous prompt. Without a prompt it has nothing to do; the paper freezes it,
    here it is left out, so that every parameter takes part in every step.
    """

    def __init__(self, config: SamMaskDecoderConfig, num_masks: int) -> None:
        super().__init__(SamMaskDecoderConfig(**{**config.to_dict(), "num_multimask_outputs": num_masks - 1}))
        self.config._attn_implementation = config._attn_implementation
        del self.iou_prediction_head

    def decode(self, image_embeddings: Tensor, positions: Tensor, dense_prompt: Tensor) -> tuple[Tensor, Tensor]:
        """What the masks are made of.

        Args:
            image_embeddings: (b, c, h, w) from the vision encoder.
            positions: (1, c, h, w) positional encoding of the grid.
            dense_prompt: (1, c, 1, 1) embedding of "no mask given".

        Returns:
            Mask tokens (b, n, c), and image features (b, c/8, 4h, 4w).
        """
        b, c, h, w = image_embeddings.shape
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(b, 1, -1, -1)
        tokens, features = self.transformer(
            point_embeddings=tokens,
            image_embeddings=image_embeddings + dense_prompt,
            image_positional_embeddings=positions.expand(b, -1, -1, -1),
            attention_similarity=None,
        )
        features = features.transpose(2, 3).reshape(b, c, h, w)
        features = self.activation(self.upscale_layer_norm(self.upscale_conv1(features)))
        return tokens[:, 0, 1:], self.activation(self.upscale_conv2(features))  # token 0 is the IoU token


class SemanticMaskDecoder(PromptFreeMaskDecoder):
    """One mask token and one hyper-network for each mask, all of them returned."""

    @classmethod
    def from_sam(cls, decoder: SamMaskDecoder, num_masks: int) -> SemanticMaskDecoder:
        """Copy SAM's decoder.

        One mask is SAM's mask token 0 with hyper-network 0 (paper, section 3.3). Several would be copies of it, equal
        masks that a softmax over classes can only part slowly: trainings began with all background for 40 to 80 steps.
        So the token is `spread`, and the last layer of each hyper-network drawn anew.
        """
        state = decoder.state_dict()
        state = {name: value for name, value in state.items() if not name.startswith("iou_prediction_head.")}
        token = state["mask_tokens.weight"][:1]
        state["mask_tokens.weight"] = token if num_masks == 1 else spread(token, num_masks)
        first = {
            name.removeprefix("output_hypernetworks_mlps.0."): state.pop(name)
            for name in list(state)
            if name.startswith("output_hypernetworks_mlps.0.")
        }
        state = {name: value for name, value in state.items() if not name.startswith("output_hypernetworks_mlps.")}
        for i in range(num_masks):
            state.update({f"output_hypernetworks_mlps.{i}.{name}": value for name, value in first.items()})
        semantic = cls(decoder.config, num_masks).to(decoder.mask_tokens.weight)
        semantic.load_state_dict(state)
        if num_masks > 1:
            semantic._draw_last_layers()
        return semantic

    def _draw_last_layers(self) -> None:
        """As torch initialises a linear layer, but always the same: an adapter knows the model below it by its weights.

        numpy keeps the numbers of `RandomState` the same for ever; torch and `default_rng` do not promise that.
        """
        generator = np.random.RandomState(0)
        for hypernetwork in self.output_hypernetworks_mlps:
            layer = hypernetwork.proj_out
            bound = layer.in_features**-0.5
            for parameter in (layer.weight, layer.bias):
                drawn = generator.uniform(-bound, bound, tuple(parameter.shape))
                parameter.data.copy_(torch.from_numpy(drawn))

    def forward(self, image_embeddings: Tensor, positions: Tensor, dense_prompt: Tensor) -> Tensor:
        """Decode masks.

        Args:
            image_embeddings, positions, dense_prompt: As in `decode`.

        Returns:
            (b, k, 4h, 4w) mask logits.
        """
        mask_tokens, features = self.decode(image_embeddings, positions, dense_prompt)
        kernels = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        return torch.einsum("bkc,bchw->bkhw", kernels, features)


def spread(token: Tensor, count: int) -> Tensor:
    """(count, c) tokens around one of (1, c), each twice its norm away in a direction of its own.

    Equal tokens would give equal masks, between which the matching of the set loss could only choose by their number.
    Up to c directions are orthogonal (rows of a cosine transform), so these tokens are equally far apart.
    """
    channels = token.shape[1]
    numbers = [torch.arange(size, dtype=torch.float64) + 0.5 for size in (count, channels)]
    directions = torch.cos(math.pi / channels * torch.outer(*numbers)) * math.sqrt(2 / channels)
    return token + _SPREAD * token.norm() * directions.to(token)
