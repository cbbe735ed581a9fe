"""The gate: which expert each sample gets, and what the balance loss needs to know about it.

Noisy top-1 gating after Shazeer et al. (2017), as the released Conv-LoRA uses it (paper, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_MIN_NOISE = 0.01


@dataclass(frozen=True)
class Routing:
    """One layer's decisions in one forward pass.

    Attributes:
        index: (b,) expert of each sample; if all take part, the first of the largest share.
        num_experts: M.
        logits: (b, M) gate logits that were compared, or None if nothing was.
        load: (M,) smooth number of samples that each expert would get, differentiable; None outside training.
        shares: (b, M, 1, 1), or (b, M, h, w) if each token has its own, factor of each expert's answer; None if only
            the expert in `index` takes part.
    """

    index: Tensor
    num_experts: int
    logits: Tensor | None = None
    load: Tensor | None = None
    shares: Tensor | None = None

    def straight_through(self) -> Tensor:
        """(b,) factors that are 1 in value and carry the gradient of the chosen expert's log-probability."""
        if self.logits is None:
            raise ValueError("this routing compared nothing, so there is no probability to differentiate")
        chosen = self.logits.log_softmax(-1).gather(1, self.index[:, None]).squeeze(1)
        return (chosen - chosen.detach()).exp()

    def balance_loss(self) -> Tensor:
        """`CV²(importance) + CV²(load)`: 0 when every expert gets the same share; not yet weighted."""
        importance = F.one_hot(self.index, self.num_experts).sum(0).float()
        return _squared_variation(importance) + _squared_variation(importance if self.load is None else self.load)


def route(pooled: Tensor, gate: Tensor, noise: Tensor, *, training: bool) -> Routing:
    """Choose one expert per sample.

    Args:
        pooled: (b, r) mean of each low-rank map over its grid.
        gate: (r, M) weights of the logits.
        noise: (r, M) weights of the noise's scale.
        training: Add noise and measure the smooth load.
    """
    num_experts = gate.shape[1]
    clean = pooled @ gate
    if not training:
        # argmax, not topk: on ties torch and ONNX Runtime disagree.
        return Routing(clean.argmax(-1), num_experts, logits=clean)
    scale = F.softplus(pooled @ noise) + _MIN_NOISE
    noisy = clean + torch.randn_like(clean) * scale
    index = noisy.argmax(-1)
    load = _smooth_load(clean, noisy, scale) if num_experts > 1 else None
    return Routing(index, num_experts, logits=noisy, load=load)


def route_softly(maps: Tensor, gate: Tensor) -> Routing:
    """Give every expert a share: the softmax of the gate's logits, all equal for a gate of zeros.

    No expert is left out and no noise is added: the task alone trains the gate, exactly, and nothing needs balancing.

    Args:
        maps: (b, r, h, w) low-rank maps for shares of each token, or their means (b, r, 1, 1) for those of each sample.
        gate: (r, M) weights of the logits.
    """
    shares = (maps.movedim(1, -1) @ gate).softmax(-1).movedim(-1, 1)
    return Routing(shares.mean((2, 3)).argmax(-1), gate.shape[1], shares=shares)


def route_to_all(pooled: Tensor, num_experts: int) -> Routing:
    """Add up all experts as they are."""
    b = pooled.shape[0]
    index = pooled.new_zeros(b, dtype=torch.long)
    return Routing(index, num_experts, shares=pooled.new_ones(b, num_experts, 1, 1))


def route_randomly(pooled: Tensor, num_experts: int) -> Routing:
    """Draw an expert for each sample from torch's generator, whatever the sample."""
    return Routing(torch.randint(num_experts, pooled.shape[:1], device=pooled.device), num_experts)


def route_to_only(pooled: Tensor) -> Routing:
    """Send every sample to the one expert there is."""
    return Routing(pooled.new_zeros(pooled.shape[:1], dtype=torch.long), 1)


def _smooth_load(clean: Tensor, noisy: Tensor, scale: Tensor) -> Tensor:
    """Σ over samples of the probability that each expert is on top when its own noise is drawn anew."""
    first, second = noisy.topk(2, dim=-1).values.split(1, dim=-1)
    threshold = torch.where(noisy > second, second, first)  # the best of the others
    return torch.special.ndtr((clean - threshold) / scale).sum(0)


def _squared_variation(values: Tensor) -> Tensor:
    """Squared coefficient of variation; 0 for a single value."""
    if values.numel() < 2:
        return values.new_zeros(())
    return values.var() / (values.mean() ** 2 + 1e-10)
