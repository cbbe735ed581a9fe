"""SAM's mask decoder without prompts, and with it the head of one mask per class."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder


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
        """Copy SAM's decoder; every mask starts as SAM's mask token 0 with hyper-network 0 (paper, section 3.3)."""
        state = decoder.state_dict()
        state = {name: value for name, value in state.items() if not name.startswith("iou_prediction_head.")}
        state["mask_tokens.weight"] = state["mask_tokens.weight"][:1].repeat(num_masks, 1)
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
        return semantic

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
