"""Raw channels as pictures that people can look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_LOW, _HIGH = 2.0, 98.0  # percentiles that become black and white


def visible_rgb(image: np.ndarray, channels: Sequence[int] | None = None) -> np.ndarray:
    """An image as RGB; three channels of 8 bits are one already, others are stretched, each by its own percentiles.

    Args:
        image: (H, W, C) raw channels, or uint8 (H, W, 3), RGB.
        channels: Those that are shown as red, green and blue, or one that is shown as grey; default the first three,
            or what there is: one channel as grey, of two the second as green and blue.

    Returns:
        uint8 (H, W, 3); the image itself if it is a picture already. Pixels without data are black.
    """
    if channels is None and image.shape[2] == 3 and image.dtype == np.uint8:
        return image
    chosen = list(range(min(3, image.shape[2])) if channels is None else channels)
    chosen += [chosen[-1]] * (3 - len(chosen))
    stretched = {channel: _stretched(image[..., channel]) for channel in set(chosen)}
    return np.stack([stretched[channel] for channel in chosen], -1)


def _stretched(values: np.ndarray) -> np.ndarray:
    """(H, W) uint8, from the 2nd to the 98th percentile; a channel of one value is mid-grey."""
    there = ~np.isnan(values)
    if not there.any():
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = np.percentile(values[there], (_LOW, _HIGH))
    if high <= low:
        low, high = float(values[there].min()), float(values[there].max())
    if high <= low:
        return np.where(there, 128, 0).astype(np.uint8)
    scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    return np.where(there, np.rint(scaled).clip(0, 255), 0).astype(np.uint8)
