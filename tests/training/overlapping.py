"""Images with discs and squares that overlap, and a quick run over them, for the tests of multilabel segmentation."""

from __future__ import annotations

import numpy as np
from PIL import Image

CLASSES = ["background", "disc", "square", "both"]
COLOURS = {"disc": "#ff0000", "square": "#00ff00"}


def write_overlapping(folder, count=9):
    """Images, masks of one channel a class, and masks of one file a class; returns the masks (H, W, 3) bool by name."""
    rng = np.random.default_rng(0)
    for part in ("images", "channels", "files"):
        (folder / part).mkdir(parents=True)
    truth = {}
    for i in range(count):
        rows, columns = np.mgrid[:48, : 40 + 2 * i]
        y, x = rng.integers(14, 26, 2)
        disc = (rows - y) ** 2 + (columns - x) ** 2 < 120
        square = (abs(rows - y - 6) < 8) & (abs(columns - x - 6) < 8)
        mask = np.stack([disc, square, disc & square], -1)
        image = rng.normal(50, 8, (*disc.shape, 3)) + 90 * disc[..., None] + [0, 0, 90] * square[..., None]
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"i{i}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "channels" / f"i{i}.png")
        for name, channel in zip(CLASSES[1:], np.moveaxis(mask, -1, 0), strict=True):
            Image.fromarray(channel).save(folder / "files" / f"i{i}_{name}.png")
        truth[f"i{i}"] = mask
    return truth
