"""Convolution experts at native resolution: exact, without the up-sampled map.

Expert i of the paper up-samples its map i times (bicubic), convolves 3×3, applies GELU and samples down again
(bicubic). Down-sampling by i reads only one row in i (i odd) or four neighbouring rows per output row (i even): the
source coordinate of output row t is `i·t + (i-1)/2`. Up-sampling and shifting are linear. So, with two small
tables per scale and axis,

    E_i(z) = D · GELU( Σ_{dy,dx} w[:, :, dy, dx] · P_dy z P_dxᵀ + bias ) · Dᵀ

where `P_d` (K × H) up-samples, shifts by d ∈ {-1, 0, 1} and keeps the K rows that are read, and `D` (H × K) weighs
them. Equal to the paper's formulation up to rounding; nothing of size iH × iW is made.

All scales share one K, so an expert is picked by indexing its tables and weights: shapes never depend on the data,
nothing waits for the device, and every parameter takes part in every step.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._guards import active_fake_mode

_BICUBIC_A = -0.75  # the constant of torch's bicubic interpolation, with which the released weights were trained


def apply_experts(
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    index: Tensor | None,
    scales: tuple[int, ...],
    activation: str = "gelu",
) -> Tensor:
    """Send each map of a batch through its expert.

    Args:
        z: (b, r, h, w) low-rank maps, float32 or float64.
        weight: (M, r, r, k, k) kernels of the M experts, out × in × rows × columns; k is odd, 3 in the paper.
        bias: (M, r).
        index: (b,) expert of each map, 0…M-1; not read if there is one expert.
        scales: Up-sampling factor of each expert, length M.
        activation: "gelu", or "none" for experts that are linear.

    Returns:
        (b, r, h, w). `z` itself is not added.
    """
    b, r, h, w = z.shape
    k = weight.shape[-1]
    up_rows, down_rows = _tables(h, scales, k, z.dtype, z.device)
    up_columns, down_columns = _tables(w, scales, k, z.dtype, z.device)
    rows, columns = up_rows.shape[-2], up_columns.shape[-2]
    if index is not None and len(scales) > 1:
        up_rows, down_rows, up_columns, down_columns, weight, bias = (
            table.index_select(0, index) for table in (up_rows, down_rows, up_columns, down_columns, weight, bias)
        )

    # P_dy z: the k shifted sets of rows, as (b, in, dy, K, w)
    shifted = torch.matmul(up_rows.flatten(1, 2).unsqueeze(1), z).unflatten(2, (k, rows))
    # Mix channels before widening the columns: the sum over (in, dy) is a matrix of kr × kr
    kernel = weight.permute(0, 1, 4, 2, 3).flatten(3, 4).flatten(1, 2)  # (·, out·dx, in·dy)
    mixed = torch.matmul(kernel, shifted.reshape(b, k * r, rows * w)).view(b, r, k, rows, w)
    # Σ_dx · P_dxᵀ as one product over (dx, w)
    columns_of = up_columns.transpose(-1, -2).flatten(1, 2)  # (·, dx·w, K)
    sampled = torch.matmul(mixed.transpose(2, 3).reshape(b, r * rows, k * w), columns_of)
    activated = sampled.view(b, r, rows, columns) + bias[:, :, None, None]
    if activation == "gelu":
        activated = F.gelu(activated)
    narrow = torch.matmul(activated.view(b, r * rows, columns), down_columns.transpose(-1, -2))
    return torch.matmul(down_rows.unsqueeze(1), narrow.view(b, r, rows, w))


def mix_experts(
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    shares: Tensor,
    scales: tuple[int, ...],
    activation: str = "gelu",
) -> Tensor:
    """Send each map through every expert and add up the answers.

    Args:
        z, weight, bias, scales, activation: As in `apply_experts`.
        shares: (b, M, 1, 1), or (b, M, h, w), factors of the experts' answers.

    Returns:
        (b, r, h, w).
    """
    out = torch.zeros_like(z)
    for i, scale in enumerate(scales):
        # one after the other, each with its own tables: padded to a common K, odd scales would cost 16 times as much
        one = slice(i, i + 1)
        out = out + shares[:, one] * apply_experts(z, weight[one], bias[one], None, (scale,), activation)
    return out


@torch.compiler.assume_constant_result  # a compiled graph takes the tables as they are
def _tables(
    size: int, scales: tuple[int, ...], kernel_size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    if active_fake_mode() is not None:  # while exporting: a fake table must not get into the cache
        return _make_tables(size, scales, kernel_size, dtype, device)
    return _cached_tables(size, scales, kernel_size, dtype, device)


def _make_tables(
    size: int, scales: tuple[int, ...], kernel_size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The tables `P` (M, k, K, size) and `D` (M, size, K) of one axis, scales with fewer rows padded with zeros."""
    with (
        torch.no_grad(),
        torch.inference_mode(False),
    ):  # a table made under inference mode could not be used in training
        tables = [_tables_of_scale(size, scale, kernel_size) for scale in scales]
        k = max(down.shape[1] for _, down in tables)
        up = torch.stack([F.pad(up, (0, 0, 0, k - up.shape[1])) for up, _ in tables])
        down = torch.stack([F.pad(down, (0, k - down.shape[1])) for _, down in tables])
        return up.to(device, dtype), down.to(device, dtype)


_cached_tables = functools.lru_cache(maxsize=256)(_make_tables)


def _tables_of_scale(size: int, scale: int, kernel_size: int) -> tuple[Tensor, Tensor]:
    upsample = _bicubic_matrix(size, scale)
    target = torch.arange(size)
    first = scale * target + (scale - 1) // 2  # the row left of, or at, the source coordinate
    if scale % 2:
        rows = first
        down = torch.eye(size, dtype=torch.float64)
    else:
        taps = first[:, None] + torch.arange(-1, 3)
        rows = taps.clamp(0, scale * size - 1).flatten()
        down = torch.kron(torch.eye(size, dtype=torch.float64), _cubic_weights(torch.tensor([0.5]).double()))
    reach = kernel_size // 2
    padded = F.pad(upsample, (0, 0, reach, reach))  # the convolution's zero padding, `reach` rows on each side
    up = torch.stack([padded[rows + reach + shift] for shift in range(-reach, reach + 1)])
    return up, down


def _bicubic_matrix(size: int, scale: int) -> Tensor:
    """(scale·size, size) matrix of bicubic up-sampling, align_corners=False, borders clamped; float64."""
    source = (torch.arange(scale * size, dtype=torch.float64) + 0.5) / scale - 0.5
    floor = source.floor()
    taps = (floor.long()[:, None] + torch.arange(-1, 3)).clamp(0, size - 1)
    matrix = torch.zeros(scale * size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, taps, _cubic_weights(source - floor))


def _cubic_weights(t: Tensor) -> Tensor:
    """Weights of the four taps around a point at distance t ∈ [0, 1) after the second; shape (…, 4)."""
    distance = torch.stack([1 + t, t, 1 - t, 2 - t], dim=-1)
    near = ((_BICUBIC_A + 2) * distance - (_BICUBIC_A + 3)) * distance**2 + 1
    far = _BICUBIC_A * (((distance - 5) * distance + 8) * distance - 4)
    return torch.where(distance <= 1, near, far)


def init_experts(weight: Tensor, bias: Tensor) -> None:
    """Initialise as `nn.Conv2d` does, with zero biases, as the released code."""
    for kernel in weight:
        torch.nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
    torch.nn.init.zeros_(bias)
