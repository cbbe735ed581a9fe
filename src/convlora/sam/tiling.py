"""Where the tiles of a large image lie, and how the answers of overlapping ones become one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from convlora.data.extras import need

Box = tuple[slice, slice]
"""Rows and columns of an image."""
Predict = Callable[[Sequence[Box]], Tensor]
"""Logits (n, k, h, w) float32 of n tiles of one shape, on the model's device."""

_SIGMA = 0.125
"""Width of the Gaussian that weighs a tile's pixels, in tile sides: at the edges it is 1/1000 of the middle's."""


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """First pixels of the tiles along one side of an image, as MONAI places them.

    Args:
        length: Of the side.
        tile: Side of the tiles, at most `length`.
        overlap: Fraction of a tile that it shares with the next one; the last one ends where the image does, and may
            share more.
    """
    step = max(1, int(tile * (1 - overlap)))
    return [*range(0, length - tile, step), length - tile]


def slide(
    predict: Predict, size: tuple[int, int], tile: int, overlap: float, *, batch_size: int, device: torch.device
) -> Tensor:
    """Logits of a large image in memory: Gaussian-weighted means of its tiles' (MONAI's sliding window).

    Args:
        predict: Segments tiles of the shape (min(tile, H), min(tile, W)).
        size: (H, W) of the image.
        tile: Side of the tiles in pixels.
        overlap: As in `tile_starts`.
        batch_size: Tiles that are segmented at a time.
        device: Of the model.

    Returns:
        (k, H, W) float32 on the CPU.

    Raises:
        SettingsError: MONAI is missing.
    """
    inferers = need("monai.inferers", "tiles", "cutting images into tiles")
    logits: Tensor = inferers.sliding_window_inference(
        # MONAI needs a tensor to cut: one number, seen at every pixel, instead of a copy of the image as floats
        torch.zeros(1).expand(1, 1, *size),
        tuple(min(tile, side) for side in size),
        batch_size,
        lambda _, windows: predict([(rows, columns) for _, _, rows, columns in windows]),
        overlap=overlap,
        mode="gaussian",
        sigma_scale=_SIGMA,
        sw_device=device,
        device=torch.device("cpu"),
        with_coord=True,
    )
    return logits[0]


def slide_bands(
    predict: Predict,
    size: tuple[int, int],
    tile: int,
    overlap: float,
    *,
    batch_size: int,
    first: int = 0,
) -> Iterator[tuple[int, Tensor]]:
    """What `slide` gives, from top to bottom, with only the tiles of one row in memory at a time.

    A band reaches from the top of one row of tiles to that of the next; there are `len(tile_starts(H, …))`. Each pixel
    is the sum of the same numbers in the same order as in `slide`.

    Args:
        predict, size, tile, overlap: As in `slide`.
        batch_size: Tiles of a row that are segmented at a time.
        first: Number of the band to begin with.

    Yields:
        The band's first row, and its logits (k, rows, W) float32 on the CPU, which the next band overwrites.

    Raises:
        SettingsError: MONAI is missing.
    """
    utils = need("monai.data.utils", "tiles", "cutting images into tiles")
    (height, width), (tile_height, tile_width) = size, (min(tile, side) for side in size)
    weight = utils.compute_importance_map((tile_height, tile_width), mode="gaussian", sigma_scale=_SIGMA)
    tops, lefts = (tile_starts(*sides, overlap) for sides in ((height, tile_height), (width, tile_width)))
    tops.append(height)
    # tiles above the first band reach into it
    row = next(i for i, top in enumerate(tops) if i == first or top + tile_height > tops[first])
    total, count = torch.zeros(0), torch.zeros(1, tile_height, width)
    for i in range(row, len(tops) - 1):
        rows = slice(tops[i], tops[i] + tile_height)
        for start in range(0, len(lefts), batch_size):
            boxes = [(rows, slice(left, left + tile_width)) for left in lefts[start : start + batch_size]]
            logits = predict(boxes)
            weighted = logits.mul_(weight.to(logits.device)).cpu()
            if not total.numel():
                total = torch.zeros(weighted.shape[1], tile_height, width)
            for (_, columns), one in zip(boxes, weighted, strict=True):
                total[:, :, columns] += one
                count[:, :, columns] += weight
        done = tops[i + 1] - tops[i]
        if i >= first:
            yield tops[i], total[:, :done].div_(count[:, :done])
        for sums in (total, count):  # what reaches into the next band moves to the top
            sums[:, : tile_height - done] = sums[:, done:].clone()
            sums[:, tile_height - done :] = 0
