"""Windows of a token grid, as windowed attention cuts them, and back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def join_windows(windows: Tensor, grid: tuple[int, int]) -> Tensor:
    """Put windows back together, and drop the padding below and to the right of the image.

    Args:
        windows: (b·rows·columns, s, t, c), window by window along the rows of each image.
        grid: (H, W) tokens of an image; rows = ⌈H/s⌉ and columns = ⌈W/t⌉.

    Returns:
        (b, H, W, c); `windows` itself if one holds the whole image.

    Raises:
        ValueError: These are not the windows of whole images.
    """
    n, s, t, c = windows.shape
    height, width = grid
    if (s, t) == (height, width):
        return windows
    rows, columns = -(-height // s), -(-width // t)
    if n % (rows * columns):
        raise ValueError(
            f"Conv-LoRA got {n} windows of {s}×{t} tokens, but an image of {height}×{width} tokens has "
            f"{rows}×{columns} of them. Give the right grid to convlora.adapter.set_image_grid, or use "
            "context='window'."
        )
    image = windows.reshape(-1, rows, columns, s, t, c).transpose(2, 3).reshape(-1, rows * s, columns * t, c)
    return image[:, :height, :width]


def cut_windows(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The inverse of `join_windows`: (b, H, W, c) to windows of `size` (s, t), padded with zeros."""
    _, height, width, c = image.shape
    s, t = size
    if (s, t) == (height, width):
        return image
    rows, columns = -(-height // s), -(-width // t)
    padded = F.pad(image, (0, 0, 0, columns * t - width, 0, rows * s - height))
    return padded.reshape(-1, rows, s, columns, t, c).transpose(2, 3).reshape(-1, s, t, c)
