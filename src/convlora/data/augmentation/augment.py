"""Random changes of a training image and its mask."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from convlora.data.augmentation.levels import blurred, noisy, with_gamma
from convlora.data.augmentation.raw_levels import changed_levels, filled
from convlora.data.augmentation.settings import AugmentationSettings

__all__ = ["AugmentationSettings", "augment"]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's conversion to grey


def augment(
    image: np.ndarray,
    mask: np.ndarray,
    settings: AugmentationSettings,
    rng: np.random.Generator,
    ignore_index: int,
    *,
    raw: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Flip, rotate, zoom and recolour an image; its mask moves along.

    Blur, brightness, contrast, saturation, gamma and noise change first. Then one affine warp about the centre moves
    the image (bilinear) and the mask (nearest) by the same geometry; what comes from outside is black and ignored.
    Quarter turns come last and are exact: by 90 and 270 degrees H and W change places.

    Args:
        image: uint8 (H, W, 3), RGB; or (H, W, C) raw channels.
        mask: uint8 (H, W), class ids.
        settings: How much may change; what does not change at all stays bit for bit.
        rng: Always gives the same number of draws, whatever the settings.
        ignore_index: Mask value of pixels from outside.
        raw: The image is one of raw channels: they change as `convlora.data.augmentation.raw_levels` explains and
            have no saturation; what comes from outside is NaN, no data.

    Returns:
        Image and mask, of the same types, but float32 for raw channels that change; of the same sizes, but for quarter
        turns.
    """
    changes = settings.changes
    flip_x, flip_y = rng.random(2) < 0.5
    rotate, scale, *recolour = rng.uniform(-1, 1, 5).tolist()
    gamma, noise, blur, turns = rng.random(4).tolist()  # drawn last: what was drawn before presets stays the same
    seed = int(rng.integers(2**63))
    height, width = mask.shape
    geometry = _output_to_input(
        (height, width),
        flips=(flip_x and changes.flip_horizontal, flip_y and changes.flip_vertical),
        degrees=rotate * changes.rotate,
        zoom=(1 + changes.scale) ** scale,
    )
    limits = (changes.brightness, changes.contrast, changes.saturation)
    brightness, contrast, saturation = (1 + limit * draw for limit, draw in zip(limits, recolour, strict=True))
    softness = changes.blur * max(0.0, 2 * blur - 1)  # half of the images stay sharp
    exponent, deviation = (1 + changes.gamma) ** (2 * gamma - 1), changes.noise * noise
    if raw:
        image = changed_levels(
            image, blur=softness, brightness=brightness, contrast=contrast, gamma=exponent, noise=deviation, seed=seed
        )
    else:
        image = _recolour(blurred(image, softness), brightness, contrast, saturation)
        image = noisy(with_gamma(image, exponent), deviation, seed)
    if geometry != (1, 0, 0, 0, 1, 0):
        image = _warp_raw(image, geometry) if raw else _warp(image, geometry, Image.Resampling.BILINEAR, 0)
        mask = _warp(mask, geometry, Image.Resampling.NEAREST, ignore_index)
    return _turned(image, mask, int(4 * turns) if changes.quarter_turns else 0)


def _turned(image: np.ndarray, mask: np.ndarray, turns: int) -> tuple[np.ndarray, np.ndarray]:
    if not turns:
        return image, mask
    return np.ascontiguousarray(np.rot90(image, turns)), np.ascontiguousarray(np.rot90(mask, turns))


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


def _warp_raw(image: np.ndarray, geometry: tuple[float, ...]) -> np.ndarray:
    """Each channel by itself, in float32; pixels without data neither mix with others nor vanish."""
    warped = []
    for channel in np.moveaxis(image, 2, 0):
        values, missing = filled(channel.astype(np.float32))
        moved = _warp(values, geometry, Image.Resampling.BILINEAR, math.nan)
        if missing.any():
            moved[_warp(missing.astype(np.uint8), geometry, Image.Resampling.NEAREST, 0) == 1] = np.nan
        warped.append(moved)
    return np.stack(warped, -1)


def _warp(array: np.ndarray, geometry: tuple[float, ...], resampling: Image.Resampling, fill: float) -> np.ndarray:
    picture = Image.fromarray(array)
    # PERSPECTIVE, not AFFINE: for the nearest pixel Pillow's AFFINE counts in 1/65536 of a pixel along a row, which
    # drifts by 0.03 pixels over 4096 columns; PERSPECTIVE takes doubles for both kinds of resampling.
    colour = fill if array.ndim == 2 else (fill,) * 3
    warped = picture.transform(
        picture.size, Image.Transform.PERSPECTIVE, (*geometry, 0, 0), resampling, fillcolor=colour
    )
    return np.array(warped)
