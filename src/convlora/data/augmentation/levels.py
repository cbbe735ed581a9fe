"""Changes of an image's grey levels that keep every pixel in its place."""

from __future__ import annotations

import numpy as np


def with_gamma(image: np.ndarray, exponent: float) -> np.ndarray:
    """Levels raised to a power, black and white kept: uint8 of any shape."""
    if exponent == 1:
        return image
    levels = np.rint(255 * np.linspace(0, 1, 256) ** exponent).astype(np.uint8)
    return levels[image]


def noisy(image: np.ndarray, deviation: float, seed: int) -> np.ndarray:
    """Gaussian noise added to each level.

    Args:
        image: uint8 of any shape.
        deviation: Standard deviation, as a part of the range 0..255.
        seed: Equal ones give equal noise.
    """
    if deviation == 0:
        return image
    noise = np.random.default_rng(seed).standard_normal(image.shape, dtype=np.float32)
    return np.rint(image + noise * np.float32(255 * deviation)).clip(0, 255).astype(np.uint8)


def blurred(image: np.ndarray, deviation: float) -> np.ndarray:
    """A Gaussian blur of each channel; the border is mirrored.

    Args:
        image: uint8 (H, W, C).
        deviation: Standard deviation in pixels.
    """
    if deviation < 0.1:  # changes no level
        return image
    from scipy import ndimage  # 0.1 s

    soft = ndimage.gaussian_filter(image.astype(np.float32), (deviation, deviation, 0), truncate=3.0)
    return np.rint(soft).astype(np.uint8)
