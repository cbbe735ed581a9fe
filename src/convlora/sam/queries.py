"""The paper's multi-class head: mask tokens that are each free to take any class (paper, section 3.3).

N mask tokens share one hyper-network, and a classifier says of each token which class its mask shows, or none. Trained
with `convlora.objectives.set_loss`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import SamMaskDecoderConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder

from convlora.errors import SettingsError
from convlora.sam.decoder import PromptFreeMaskDecoder, SemanticMaskDecoder, spread

_FEW_CLASSES = 20  # the paper takes 10 tokens for the 12 classes of Trans10K, and 100 for the 21 of VOC


def default_queries(num_labels: int, width: int) -> int:
    """Mask tokens where none are asked for: 10 for up to 20 classes, 100 for more, and always one for each class.

    Args:
        num_labels: Classes.
        width: Channels of a token; there is no direction to `spread` more tokens in.

    Raises:
        SettingsError: There are more classes than tokens can be.
    """
    if num_labels > width:
        raise SettingsError(
            f"head='queries' has room for {width} classes, the width of a token, and there are {num_labels}. Use "
            "head='classes', or give fewer `num_queries`: no image shows all classes."
        )
    return min(max(10 if num_labels <= _FEW_CLASSES else 100, num_labels), width)


class QueryMaskDecoder(PromptFreeMaskDecoder):
    """`num_queries` mask tokens with one hyper-network for all, and the class of each."""

    def __init__(self, config: SamMaskDecoderConfig, num_queries: int, num_labels: int) -> None:
        super().__init__(config, num_masks=1)
        self.mask_tokens = nn.Embedding(num_queries, config.hidden_size)
        self.class_predictor = nn.Linear(config.hidden_size, num_labels + 1)

    @classmethod
    def from_sam(cls, decoder: SamMaskDecoder, num_queries: int, num_labels: int) -> QueryMaskDecoder:
        """Copy SAM's decoder: hyper-network 0, and mask token 0 `spread` to all tokens; no class is preferred.

        Nothing of it is random, so that the model below an adapter is the same wherever it is loaded.
        """
        state = SemanticMaskDecoder.from_sam(decoder, 1).state_dict()
        token = state["mask_tokens.weight"]
        state["mask_tokens.weight"] = spread(token, num_queries)
        state["class_predictor.weight"] = token.new_zeros(num_labels + 1, token.shape[1])
        state["class_predictor.bias"] = token.new_zeros(num_labels + 1)
        queries = cls(decoder.config, num_queries, num_labels).to(token)
        queries.load_state_dict(state)
        return queries

    def forward(self, image_embeddings: Tensor, positions: Tensor, dense_prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Decode masks and their classes.

        Args:
            image_embeddings, positions, dense_prompt: As in `decode`.

        Returns:
            Mask logits (b, q, 4h, 4w), and class logits (b, q, K + 1), the last for "no object".
        """
        mask_tokens, features = self.decode(image_embeddings, positions, dense_prompt)
        masks = torch.einsum("bqc,bchw->bqhw", self.output_hypernetworks_mlps[0](mask_tokens), features)
        return masks, self.class_predictor(mask_tokens)


def class_scores(mask_logits: Tensor, class_logits: Tensor) -> Tensor:
    """What the tokens say of each class: the logarithm of Σ_q p_q(class) · σ(mask_q), as the paper infers.

    The logarithm changes no argmax, and a softmax over it divides the sums by their total. It also keeps small what
    the order of interpolation matters. The paper enlarges the masks first, which with 100 of them is 400 MB for an
    image of 1024 pixels; enlarging this map instead gives the same classes wherever two complementary masks compete,
    because log σ(m) − log σ(−m) = m. Elsewhere some pixels at borders differ: 1 % of those of 128 × 128 images that
    were segmented badly, with a mean IoU that was 0.003 less in one run, and 0.002 more in another.

    Args:
        mask_logits: (b, q, h, w).
        class_logits: (b, q, K + 1), the last for "no object".

    Returns:
        (b, K, h, w) float32, finite, in any precision and under autocast.
    """
    with torch.autocast(mask_logits.device.type, enabled=False):
        probability = class_logits.float().softmax(-1)[..., :-1]
        scores = torch.einsum("bqk,bqhw->bkhw", probability, mask_logits.float().sigmoid())
    return scores.clamp(min=torch.finfo(torch.float32).tiny).log()
