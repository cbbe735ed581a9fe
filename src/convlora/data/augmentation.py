"""Random changes of a training image and its mask."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from convlora.data.settings import AugmentationSettings

__all__ = ["AugmentationSettings", "augment"]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's conversion to grey


def augment(
    image: np.ndarray, mask: np.ndarray, settings: AugmentationSettings, rng: np.random.Generator, ignore_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Flip, rotate, zoom and recolour an image; its mask moves along.

    Brightness, contrast and saturation change first. Then one affine warp about the centre moves the image
    (bilinear) and the mask (nearest) by the same geometry; what comes from outside is black and ignored.

    Args:
        image: uint8 (H, W, 3).
        mask: uint8 (H, W), class ids.
        settings: How much may change; what does not change at all stays bit for bit.
        rng: Always gives the same number of draws, whatever the settings.
        ignore_index: Mask value of pixels from outside.

    Returns:
        Image and mask, of the same types and sizes.
    """
    flip_x, flip_y = rng.random(2) < 0.5
    rotate, scale, *recolour = rng.uniform(-1, 1, 5).tolist()
    height, width = mask.shape
    geometry = _output_to_input(
        (height, width),
        flips=(flip_x and settings.flip_horizontal, flip_y and settings.flip_vertical),
        degrees=rotate * settings.rotate,
        zoom=(1 + settings.scale) ** scale,
    )
    limits = (settings.brightness, settings.contrast, settings.saturation)
    image = _recolour(image, *(1 + limit * draw for limit, draw in zip(limits, recolour, strict=True)))
    if geometry == (1, 0, 0, 0, 1, 0):
        return image, mask
    return (
        _warp(image, geometry, Image.Resampling.BILINEAR, 0),
        _warp(mask, geometry, Image.Resampling.NEAREST, ignore_index),
    )


def _recolour(image: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    if brightness == contrast == saturation == 1:
        return image
    pixels = image.astype(np.float32) * np.float32(brightness)
    grey = pixels @ _LUMA
    middle = grey.mean(dtype=np.float64).astype(np.float32)
    pixels = grey[..., None] + (pixels - grey[..., None]) * np.float32(saturation)  # leaves the grey, and its mean
    pixels = middle + (pixels - middle) * np.float32(contrast)
    return np.rint(pixels).clip(0, 255).astype(np.uint8)


def _output_to_input(
    size: tuple[int, int], *, flips: tuple[bool, bool], degrees: float, zoom: float
) -> tuple[float, ...]:
    """Coefficients (a, b, c, d, e, f) of x = a X + b Y + c, y = d X + e Y + f.

    (X, Y) is a point of the output, (x, y) the point of the input that is seen there, both in pixels from the top
    left corner; the middle of the first pixel is (0.5, 0.5).
    """
    height, width = size
    cosine, sine = math.cos(math.radians(degrees)) / zoom, math.sin(math.radians(degrees)) / zoom
    sign_x, sign_y = (-1 if flip else 1 for flip in flips)
    a, b, d, e = sign_x * cosine, sign_x * sine, -sign_y * sine, sign_y * cosine
    return a, b, (width - a * width - b * height) / 2, d, e, (height - d * width - e * height) / 2


def _warp(array: np.ndarray, geometry: tuple[float, ...], resampling: Image.Resampling, fill: int) -> np.ndarray:
    picture = Image.fromarray(array)
    # PERSPECTIVE, not AFFINE: for the nearest pixel Pillow's AFFINE counts in 1/65536 of a pixel along a row, which
    # drifts by 0.03 pixels over 4096 columns; PERSPECTIVE takes doubles for both kinds of resampling.
    colour = fill if array.ndim == 2 else (fill,) * 3
    warped = picture.transform(
        picture.size, Image.Transform.PERSPECTIVE, (*geometry, 0, 0), resampling, fillcolor=colour
    )
    return np.array(warped)
