"""Mean attention distance: how far each head of the encoder looks.

Of a query token, the distance to every key token, weighted by attention; then the mean over queries and images
(Dosovitskiy et al. 2021, section 4.5 and figure 7; Raghu et al. 2021, section 4).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from transformers.models.sam.modeling_sam import SamVisionAttention

from convlora.adapter.windows import cut_windows
from convlora.analysis.encoding import content_tokens, encode, vit_blocks
from convlora.data.dataset import SegmentationDataset
from convlora.inference.predictor import Predictor

DEFINITION = (
    "Mean over query tokens of the attention-weighted mean Euclidean distance to the key tokens, in pixels of the "
    "model's input. In windowed blocks within the window. Padding of windows and of the image counts neither as query "
    "nor as key: the weights of the other keys are scaled to sum to 1."
)

_SCORES = 2**22  # attention weights that are held at a time: 16 MB, and a few times that while they are computed


def attention_distances(
    predictor: Predictor,
    dataset: SegmentationDataset,
    *,
    batch_size: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[int, np.ndarray]:
    """The distances of every block of SAM's ViT, as `DEFINITION` says.

    The model is taken as it is: call this inside `model.disable_adapter()` for the distances before tuning.

    Args:
        predictor: The segmenter.
        dataset: The images.
        batch_size: Images that are encoded at a time.
        progress: Called with the number of images that are done.

    Returns:
        Mean distance of each head (heads,) by the number of its block; empty if the encoder is not SAM's ViT.
    """
    meter = _Meter(predictor)
    with meter.listening():
        for start in range(0, len(dataset) if meter.blocks else 0, batch_size):
            batch = [dataset[i]["image"] for i in range(start, min(start + batch_size, len(dataset)))]
            meter.sizes = [(image.shape[0], image.shape[1]) for image in batch]
            encode(predictor, batch)
            progress(start + len(batch))
    patch = predictor.processor.size / meter.side
    return {number: (sums / count * patch).cpu().numpy() for number, (sums, count) in sorted(meter.sums.items())}


class _Meter:
    """Adds up distances in tokens while the encoder works, so that nothing of a block outlives it."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.blocks = vit_blocks(predictor)
        self.sizes: list[tuple[int, int]] = []  # (height, width) of the images that are encoded now
        self.side = 1  # tokens
        self.sums: dict[int, tuple[Tensor, int]] = {}  # sum of each head, and number of queries

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for number, block in self.blocks:
                hook = block.register_forward_pre_hook(self._remember_grid)
                stack.callback(hook.remove)
                # inside a tuner's wrapper, too
                attention = next(module for module in block.modules() if isinstance(module, SamVisionAttention))
                hook = attention.qkv.register_forward_hook(self._measure(number, attention))
                stack.callback(hook.remove)
            yield

    def _remember_grid(self, block: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.side = inputs[0].shape[1]

    def _measure(self, number: int, attention: SamVisionAttention) -> Callable[..., None]:
        def measure(layer: torch.nn.Module, inputs: tuple[Tensor, ...], qkv: Tensor) -> None:
            if qkv.dim() != 4:
                return  # keys of prompts, which have no place
            inside = content_tokens(self.predictor.processor, self.sizes, (self.side, self.side)).to(qkv.device)
            windows = cut_windows(inside[..., None].float(), (qkv.shape[1], qkv.shape[2]))[..., 0] > 0
            with torch.autocast(qkv.device.type, enabled=False):
                sums, count = distance_sums(attention, qkv, windows)
            before = self.sums.get(number, (0, 0))
            self.sums[number] = (before[0] + sums, before[1] + count)

        return measure


def distance_sums(attention: SamVisionAttention, qkv: Tensor, valid: Tensor) -> tuple[Tensor, int]:
    """Sum over queries of the attention-weighted mean distance to the keys, in tokens.

    The weights are computed for some queries at a time, whichever way the layer computes its own answer.

    Args:
        attention: The layer, for its relative positions.
        qkv: (b, h, w, 3c) what its linear layer made of the tokens.
        valid: (b, h, w) bool, which tokens take part.

    Returns:
        Sum of each head (heads,) float32, and the number of valid queries.
    """
    keep = valid.flatten(1).any(1)
    qkv, valid = qkv[keep].float(), valid[keep].flatten(1)
    b, h, w, _ = qkv.shape
    query, key, _ = qkv.view(b, h * w, 3, attention.num_attention_heads, -1).permute(2, 0, 3, 1, 4)
    places = torch.cartesian_prod(torch.arange(h), torch.arange(w)).to(qkv)
    tables = [attention.rel_pos_h, attention.rel_pos_w] if attention.use_rel_pos else []
    tables = [attention.get_rel_pos(side, side, table.float()) for side, table in zip((h, w), tables, strict=False)]
    sums = qkv.new_zeros(attention.num_attention_heads)
    step = max(1, _SCORES // (b * attention.num_attention_heads * h * w))
    for part in torch.arange(h * w, device=qkv.device).split(step):
        some = query[:, :, part]
        scores = some * attention.scale @ key.transpose(-2, -1)
        if tables:  # relative positions see the query unscaled
            rows, columns = part // w, part % w
            vertical = torch.einsum("bnqd,qkd->bnqk", some, tables[0][rows])
            horizontal = torch.einsum("bnqd,qkd->bnqk", some, tables[1][columns])
            scores = scores + (vertical[..., :, None] + horizontal[..., None, :]).flatten(-2)
        weights = scores.masked_fill(~valid[:, None, None], -torch.inf).softmax(-1)
        distances = torch.linalg.vector_norm(places[part][:, None] - places, dim=-1)
        means = torch.einsum("bnqk,qk->bnq", weights, distances)
        sums += (means * valid[:, None, part]).sum((0, 2))
    return sums, int(valid.sum())
