"""The formulation of the paper and the released code, as plainly as it can be written: the oracle."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def expert(z: Tensor, weight: Tensor, bias: Tensor, scale: int, activation=F.gelu) -> Tensor:
    """Up-sample, convolve, GELU, down-sample one batch (b, r, h, w) that shares an expert."""
    padding = weight.shape[-1] // 2
    if scale == 1:
        return activation(F.conv2d(z, weight, bias, padding=padding))
    up = F.interpolate(z, scale_factor=scale, mode="bicubic", align_corners=False)
    out = activation(F.conv2d(up, weight, bias, padding=padding))
    return F.interpolate(out, size=z.shape[-2:], mode="bicubic", align_corners=False)


def mixture(z: Tensor, weight: Tensor, bias: Tensor, index: Tensor, scales: tuple[int, ...]) -> Tensor:
    """Every map through its expert, one after the other."""
    maps = [expert(z[i : i + 1], weight[e], bias[e], scales[e]) for i, e in enumerate(index.tolist())]
    return torch.cat(maps) if maps else z


def layer(
    x: Tensor, base: nn.Linear, a: Tensor, b: Tensor, scaling: float, experts: tuple[Tensor, Tensor], index: Tensor
):
    """`W0 x + b + scaling · B (z + E(z))` for x of shape (b, h, w, c)."""
    z = x @ a.T
    weight, bias = experts
    maps = mixture(z.movedim(-1, 1), weight, bias, index, tuple(range(1, len(weight) + 1)))
    return base(x) + scaling * (z + maps.movedim(1, -1)) @ b.T
