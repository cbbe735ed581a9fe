"""Random changes of raw channels, whose units and ranges mean nothing to us.

For each channel of an image, its mean minus and plus two standard deviations stand for black and white; what lies
outside is not clipped. So a change is the same whether a channel is in kelvin or degrees, in counts or reflectance.
Pixels without data (NaN) stay so, and count nowhere.
"""

from __future__ import annotations

import numpy as np

_DEVIATIONS = 2.0  # a uniform distribution has 1.7 to either side of its mean, a normal one 95 % within 2


def changed_levels(
    image: np.ndarray, *, blur: float, brightness: float, contrast: float, gamma: float, noise: float, seed: int
) -> np.ndarray:
    """Blur, brightness, contrast, gamma and noise, in this order and with the meaning that they have for pictures.

    Args:
        image: (H, W, C) raw channels.
        blur: Standard deviation in pixels.
        brightness: Factor of the levels.
        contrast: Factor of their distance from the mean.
        gamma: Exponent of the levels from black to white.
        noise: Standard deviation, as a part of the range from black to white.
        seed: Of the noise.

    Returns:
        float32 of the same shape; the image itself if nothing changes.
    """
    blur = blur if blur >= 0.1 else 0.0
    if not blur and not noise and brightness == contrast == gamma == 1:
        return image
    drawn = np.random.default_rng(seed)
    channels = [
        _changed(channel.astype(np.float32), blur, brightness, contrast, gamma, noise, drawn)
        for channel in np.moveaxis(image, 2, 0)
    ]
    return np.stack(channels, -1)


def filled(channel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A channel (H, W) with its mean in place of NaN, and where NaN was (H, W) bool."""
    missing = np.isnan(channel)
    if missing.all():
        return np.zeros_like(channel), missing
    if missing.any():
        channel = np.where(missing, channel[~missing].mean(dtype=np.float64), channel).astype(channel.dtype)
    return channel, missing


def _changed(
    channel: np.ndarray,
    blur: float,
    brightness: float,
    contrast: float,
    gamma: float,
    noise: float,
    drawn: np.random.Generator,
) -> np.ndarray:
    values, missing = filled(channel)
    random = drawn.standard_normal(channel.shape, dtype=np.float32) if noise else np.float32(0)
    there = values[~missing].astype(np.float64)
    spread = 2 * _DEVIATIONS * float(there.std()) if len(there) else 0.0
    if not spread:  # one value throughout has no levels
        return channel
    black = float(there.mean()) - spread / 2
    if blur:
        from scipy import ndimage  # 0.1 s

        values = ndimage.gaussian_filter(values, blur, truncate=3.0)
    levels = (values.astype(np.float64) - black) / spread * brightness  # the spread may be small and far from 0
    middle = levels[~missing].mean(dtype=np.float64)
    levels = middle + (levels - middle) * contrast
    if gamma != 1:
        inside = (levels > 0) & (levels < 1)
        levels[inside] **= gamma
    levels = (levels + random * noise) * spread + black
    levels[missing] = np.nan
    return levels.astype(np.float32)
