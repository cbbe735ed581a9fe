"""How a mask's outlines lie on an image's edges, and where they would lie better."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EDGE_SIDE = 384
"""Pixels that the longest side may have; larger pairs are shrunk first."""
REACH = 16
"""Shifts are tried up to so many (shrunk) pixels in each direction."""
_FEWEST = 40  # outline pixels; fewer lie on edges by chance


@dataclass(frozen=True)
class EdgeFit:
    """Correlation of one mask's outlines with its image's edges."""

    gains: np.ndarray
    """float32 (2 REACH + 1, 2 REACH + 1): by how many standard deviations the image's gradient is above its mean
    along the outlines, with the mask moved down by row - REACH and right by column - REACH."""
    step: int
    """Pixels of the image to a pixel of the shift."""

    @property
    def fit(self) -> float:
        """The gain of the mask where it is; about 0 if outlines and edges have nothing to do with each other."""
        return float(self.gains[REACH, REACH])

    @property
    def best(self) -> tuple[int, int]:
        """The shift (down, right), in pixels of the image, at which the gain is highest."""
        row, column = np.unravel_index(int(self.gains.argmax()), self.gains.shape)
        return (int(row) - REACH) * self.step, (int(column) - REACH) * self.step


def edge_fit(grey: np.ndarray, values: np.ndarray, step: int = 1) -> EdgeFit | None:
    """Correlate outlines with edges.

    Args:
        grey: float32 (h, w).
        values: int (h, w), the mask.
        step: By how much both were shrunk.

    Returns:
        None if the mask has hardly an outline or the image no edge.
    """
    from scipy import fft, ndimage

    height, width = values.shape
    outline = np.zeros((height, width), dtype=np.float32)
    rows, columns = values[1:] != values[:-1], values[:, 1:] != values[:, :-1]
    outline[1:] += rows
    outline[:-1] += rows
    outline[:, 1:] += columns
    outline[:, :-1] += columns
    np.minimum(outline, 1, out=outline)
    smooth = ndimage.gaussian_filter(grey, 1.0, truncate=3.0)
    gradient = np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))
    spread = float(gradient.std())
    if min(height, width) <= REACH or outline.sum() < _FEWEST or spread < 1e-3:
        return None
    gradient = (gradient - gradient.mean()) / spread
    shape = [fft.next_fast_len(side + REACH, real=True) for side in (height, width)]  # zeros, so nothing wraps around
    product = fft.rfft2(gradient, shape) * np.conj(fft.rfft2(outline, shape))
    every = fft.irfft2(product, shape)
    near = np.arange(-REACH, REACH + 1)
    return EdgeFit((every[np.ix_(near, near)] / outline.sum()).astype(np.float32), step)
