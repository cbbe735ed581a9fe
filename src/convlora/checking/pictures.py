"""Which images a check shows, and how: overlays at the size that is shown, cut out around what is small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from convlora.data.augmentation.augment import augment
from convlora.data.augmentation.settings import AugmentationSettings
from convlora.data.findings.finding import Survey
from convlora.data.labels.bits import unpack
from convlora.data.pixels.channels import read_pixels
from convlora.data.pixels.display import visible_rgb
from convlora.data.pixels.masks import LabelFormat, read_mask
from convlora.data.samples import Sample
from convlora.data.settings import DataSettings
from convlora.evaluation.figures import data_uri
from convlora.inference.drawing import overlay

_SIDE = 256  # pixels of a picture's longest side
_ZOOMED = 4  # a class that fills less than this part of the image's side is cut out
VIEWS = 6
"""Augmented views of each image."""


@dataclass(frozen=True)
class Picture:
    """A picture as a URL, and what is written below it."""

    url: str
    caption: str


class Pictures:
    """Decodes samples again and draws them.

    Args:
        samples: All that may be asked for.
        labels: Of their masks.
        settings: How the images are read.
    """

    def __init__(self, samples: Sequence[Sample], labels: LabelFormat, settings: DataSettings) -> None:
        self.samples = {sample.name: sample for sample in samples}
        self.labels = labels
        self.settings = settings

    def decoded(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The image as a model takes it, and class ids (H, W) or, where classes overlap, bit fields."""
        limits, source = self.settings.limits, self.samples[name].required_mask()
        image = read_pixels(self.samples[name].image, limits, self.settings.channels)
        return image, self.labels.decode(read_mask(source, limits), source)

    def whole(self, name: str, caption: str) -> Picture:
        """A sample with its mask on it."""
        return Picture(self._drawn(*self.decoded(name)), caption)

    def around(self, name: str, class_id: int, caption: str) -> Picture:
        """A sample with its mask on it; if a class fills a small part of it only, this part."""
        image, ids = self.decoded(name)
        window = _window(unpack(ids, class_id) if self.labels.multilabel else ids == class_id)
        if window is not None:
            image, ids, caption = image[window], ids[window], f"{caption}, a part"
        return Picture(self._drawn(image, ids), caption)

    def views(self, name: str, augmentation: AugmentationSettings) -> list[Picture]:
        """A sample as it is, and as training may see it; with outlines only, as the colours are what changes."""
        image, ids = self.decoded(name)
        raw = self.settings.channels is not None
        pictures = [Picture(self._drawn(image, ids, outlined=True), name)]
        for view in range(1, VIEWS + 1):
            rng = np.random.default_rng((0, view))
            changed = augment(image, ids, augmentation, rng, self.labels.ignore_index, raw=raw)
            pictures.append(Picture(self._drawn(*changed, outlined=True), f"view {view}"))
        return pictures

    def _drawn(self, image: np.ndarray, ids: np.ndarray, *, outlined: bool = False) -> str:
        """An overlay as a URL, drawn at the size that is shown, so that outlines stay as thick as they are."""
        picture = visible_rgb(image, self.settings.display_channels)
        zoom = _SIDE / max(ids.shape)
        height, width = (max(1, round(side * zoom)) for side in ids.shape)
        smooth = Image.Resampling.LANCZOS if zoom < 1 else Image.Resampling.NEAREST
        picture = np.asarray(Image.fromarray(picture).resize((width, height), smooth))
        rows = ((np.arange(height) + 0.5) * ids.shape[0] / height).astype(int)
        columns = ((np.arange(width) + 0.5) * ids.shape[1] / width).astype(int)
        ids = ids[np.ix_(rows, columns)]
        if outlined:
            ids = np.where(_inner(ids), 0, ids)
        drawn = overlay(
            picture,
            ids,
            self.labels.ignore_index,
            colours=self.labels.palette,
            multilabel=self.labels.multilabel,
        )
        return data_uri(drawn)


def shown_for(survey: Survey, class_id: int, count: int = 4) -> list[str]:
    """Samples in which a class fills the least and the most pixels, and some between, evenly spread; smallest first."""
    pixels = {name: survey.class_pixels(name).get(class_id, 0) for name in survey.split_of}
    held = sorted((name for name in pixels if pixels[name]), key=lambda name: (pixels[name], name))
    places = np.linspace(0, len(held) - 1, min(count, len(held))).round().astype(int)
    return [held[place] for place in places]


def _inner(ids: np.ndarray) -> np.ndarray:
    """Where a pixel and its four neighbours are alike; beyond the border all is."""
    framed = np.pad(ids, 1, mode="edge")
    around = (framed[:-2, 1:-1], framed[2:, 1:-1], framed[1:-1, :-2], framed[1:-1, 2:])
    return np.logical_and.reduce([side == ids for side in around])


def _window(inside: np.ndarray) -> tuple[slice, slice] | None:
    """A square around what is marked, if that is small; None for the whole image."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return None
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    side = max(_ZOOMED * int(extent), 64)
    if side * 2 > max(inside.shape):
        return None
    starts = (
        min(max(0, int(found[0] + found[-1]) // 2 - side // 2), max(0, length - side))
        for found, length in ((rows, inside.shape[0]), (columns, inside.shape[1]))
    )
    top, left = starts
    return slice(top, top + side), slice(left, left + side)
