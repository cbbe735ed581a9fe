"""What remains of a decoded image and mask: figures small enough to keep for every pair of a large data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from convlora.data.findings.edges import EDGE_SIDE, EdgeFit, edge_fit
from convlora.data.labels.format import NO_DATA
from convlora.data.pixels.channels import read_pixels
from convlora.data.pixels.display import visible_rgb
from convlora.data.pixels.layouts import layout
from convlora.data.pixels.masks import read_mask, require_equal_sizes
from convlora.data.pixels.statistics import Moments
from convlora.data.samples import Sample
from convlora.data.settings import ImageLimits
from convlora.data.sources import digest

THUMBNAIL = 32
"""Rows and columns of a thumbnail."""
_TONE_PIXELS = 5_000  # enough for the mean grey of a class to about one level
_SAMPLES = 8  # rows and columns, at least, that a pixel of a smaller picture is the mean of


@dataclass(frozen=True)
class Details:
    """What takes about as long to measure as the pair takes to decode."""

    objects: dict[int, tuple[np.ndarray, np.ndarray]]
    """By mask value: areas of its connected components in pixels, ascending, and how many have each."""
    edges: EdgeFit | None
    """How the mask's outlines lie on the image's edges; None if the mask has no outline or the image no edge."""
    layout: str
    """How the image's file stores pixels, in words."""


@dataclass(frozen=True)
class Measured:
    """Figures of one pair."""

    size: tuple[int, int]
    """(H, W)."""
    values: dict[int, int]
    """Pixels by mask value."""
    digest: str
    """Hash of the image's content."""
    thumbnail: np.ndarray
    """uint8 (32, 32): mean grey of each part of the image."""
    tones: dict[int, float]
    """Mean grey, 0..255, under each mask value, of a regular part of the pixels."""
    frame: dict[int, float]
    """Share of the outermost pixels that have each mask value."""
    details: Details | None = None
    moments: Moments | None = None
    """Of raw channels."""

    @property
    def brightness(self) -> float:
        """Mean grey of the image, 0..255."""
        return float(self.thumbnail.mean())


def measure(
    sample: Sample,
    limits: ImageLimits,
    *,
    details: bool = False,
    channels: int | None = None,
    display_channels: Sequence[int] | None = None,
) -> Measured:
    """Decode a sample's image and mask once and measure both; of raw channels those that are shown are the picture.

    Raises:
        DataError: one of them cannot be used, or their sizes differ.
    """
    pixels = read_pixels(sample.image, limits, channels)
    image = visible_rgb(pixels, display_channels)
    values = read_mask(sample.required_mask(), limits)
    require_equal_sizes(sample, image.shape[:2], values.shape)
    grey = small_grey(image, (THUMBNAIL, THUMBNAIL))
    # of more than three channels, what the masks follow may be in one that the picture lacks
    followed = image if pixels.shape[2] <= 3 else None
    return Measured(
        size=(values.shape[0], values.shape[1]),
        values=histogram(values),
        digest=digest(sample.image),
        thumbnail=grey,
        tones=_tones(image, values),
        frame=_frame(values),
        details=Details(_objects(values), _edges(followed, values), layout(sample.image, limits)) if details else None,
        moments=Moments.of(pixels) if channels is not None else None,
    )


def histogram(values: np.ndarray) -> dict[int, int]:
    """Pixels by value."""
    if values.size and values.min() == NO_DATA:
        there = values[values != NO_DATA]
        return {NO_DATA: values.size - there.size} | (histogram(there) if there.size else {})
    if _dense(values):  # ten times faster than np.unique
        every = np.bincount(values.ravel())
        found = np.flatnonzero(every)
        counts = every[found]
    else:
        found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def small_grey(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """An image (H, W, 3) as grey of another size (h, w), each pixel the mean of (a part of) what it covers; uint8."""
    rows, columns = (max(1, side // (_SAMPLES * wanted)) for side, wanted in zip(image.shape[:2], size, strict=True))
    picture = Image.fromarray(np.ascontiguousarray(image[::rows, ::columns]))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BOX).convert("L"))


def _tones(image: np.ndarray, values: np.ndarray) -> dict[int, float]:
    step = max(1, int((values.size / _TONE_PIXELS) ** 0.5))
    grey = image[::step, ::step].mean(-1, dtype=np.float32).ravel()
    found, index = _numbered(values[::step, ::step])
    index = index.ravel()
    counts = np.bincount(index, minlength=len(found))
    sums = np.bincount(index, grey, minlength=len(found))
    return {int(found[i]): float(sums[i] / counts[i]) for i in np.flatnonzero(counts)}


def _frame(values: np.ndarray) -> dict[int, float]:
    frame = np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])
    return {value: count / frame.size for value, count in histogram(frame).items()}


def _objects(values: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Areas of 8-connected components; of the background 4-connected ones, as that of a diagonal line has no holes."""
    from scipy import ndimage  # 0.1 s

    found = {}
    for value, (rows, columns) in _boxes(values).items():
        inside = values[rows, columns] == value
        structure = np.ones((3, 3)) if value else None
        labels, count = ndimage.label(inside, structure)
        areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        found[value] = np.unique(areas, return_counts=True)
    return found


def _boxes(values: np.ndarray) -> dict[int, tuple[slice, slice]]:
    """The smallest box around each value of a mask."""
    from scipy import ndimage

    found, index = _numbered(values)
    boxes = ndimage.find_objects(index + 1)
    return {int(value): box for value, box in zip(found, boxes, strict=False) if box is not None}


def _numbered(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ascending values, among them all that a mask (H, W) holds, and the position of each pixel's value in them."""
    if _dense(values):  # not to sort is twenty times faster
        return np.arange(int(values.max()) + 1), values
    found, index = np.unique(values, return_inverse=True)
    return found, index.reshape(values.shape)


def _dense(values: np.ndarray) -> bool:
    """Whether values are small enough to count by position."""
    return bool(values.min() >= 0 and values.max() < 2**16)


def _edges(image: np.ndarray | None, values: np.ndarray) -> EdgeFit | None:
    if image is None:
        return None
    step = -(-max(values.shape) // EDGE_SIDE)
    height, width = (-(-side // step) for side in values.shape)
    grey = small_grey(image, (height, width)).astype(np.float32)
    rows, columns = (
        np.minimum(np.arange(n) * step + step // 2, side - 1) for n, side in zip(grey.shape, values.shape, strict=True)
    )
    return edge_fit(grey, values[np.ix_(rows, columns)], step)
