"""Square crops of large images for training: where they lie, and how they are read and changed."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from convlora.data.augmentation.augment import augment
from convlora.data.augmentation.changes import Changes
from convlora.data.dataset import SegmentationDataset
from convlora.data.labels.bits import unpack
from convlora.data.pixels.channels import pixels_size
from convlora.data.pixels.masks import LabelFormat
from convlora.data.pixels.windows import Box, has_windows, read_mask_window, read_window
from convlora.data.samples import Sample
from convlora.data.settings import ImageLimits

_ANY_SIZE = ImageLimits(max_pixels=sys.maxsize)
_REMEMBERED = 10_000  # pixels of each class of an image that crops are centred on; all of them, if there are fewer
_REMEMBERED_IN_ALL = 20_000_000  # of each class in all images, 8 bytes each; with more images fewer of each
_BAND = 4_000_000  # pixels of a mask that are looked through at a time


class TileDataset(SegmentationDataset):
    """Random crops of some samples.

    An epoch has a crop for each `tile` × `tile` pixels of each image (begun squares count), so that it shows each pixel
    about once; or a fixed number for each image.

    Args:
        samples, labels: As of `SegmentationDataset`.
        tile: Side of the crops in pixels; of an image that is smaller, a crop is its whole height or width.
        sampling: "random" gives every place the same chance. "foreground" puts each crop, with a chance of one half,
            around a random pixel of a random class among those of its image, the background and ignored pixels
            excepted, and then moves it into the image if it sticks out; the other crops are random, as are all of
            images without such pixels.
        per_image: Crops of each image in an epoch; None as said above.
        **options: As of `SegmentationDataset`.

    Raises:
        ImageError: Of an image whose size cannot be read.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: LabelFormat,
        *,
        tile: int,
        sampling: str = "random",
        per_image: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(samples, labels, **options)
        self.tile = tile
        self.sampling = sampling
        self.sizes = [self._size(sample) for sample in self.samples]
        self._ends = np.cumsum([per_image or math.ceil(height * width / tile**2) for height, width in self.sizes])
        self._remembered = min(_REMEMBERED, max(1, _REMEMBERED_IN_ALL // max(1, len(self.samples))))
        self._places: dict[int, list[np.ndarray]] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def sample_index(self, index: int) -> int:
        """Which of the samples a crop is of."""
        return int(np.searchsorted(self._ends, index, side="right"))

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """Read one crop.

        Args:
            key: (epoch, number of the crop). The crop and its changes are drawn by (seed, epoch, number) alone, or
                by (seed, epoch modulo views, number). A number alone is of epoch 0, without changes.

        Returns:
            As of `SegmentationDataset`; (H, W) are those of the tile, or less if the image is smaller.

        Raises:
            DataError: A file cannot be used any more.
        """
        epoch, number = key if isinstance(key, tuple) else (None, key)
        index = self.sample_index(number)
        settings = self.augmentation
        view = epoch or 0
        if settings is not None and settings.views:
            view %= settings.views
        rng = np.random.default_rng((self.seed, view, number))
        box = self._draw(index, rng)
        if epoch is None or settings is None or not settings.enabled:
            image, mask = self._read(index, box)
        else:
            image, mask = self._read_around(index, box, margin(box, settings.changes))
            before = mask.shape
            raw = self.channels is not None
            image, mask = augment(image, mask, settings, rng, self.labels.ignore_index, raw=raw)
            shape = (box.height, box.width) if mask.shape == before else (box.width, box.height)  # a quarter turn
            image, mask = _middle(image, shape), _middle(mask, shape)
        return {"image": image, "mask": mask, "name": self.samples[index].name}

    def _size(self, sample: Sample) -> tuple[int, int]:
        return pixels_size(sample.image, _ANY_SIZE if self._windowed(sample) else self.limits, self.channels)

    def _windowed(self, sample: Sample) -> bool:
        return has_windows(sample.image, sample.required_mask(), self.channels)

    def _draw(self, index: int, rng: np.random.Generator) -> Box:
        """Where a crop lies; takes as many numbers from `rng` whatever it finds."""
        size = self.sizes[index]
        height, width = (min(self.tile, side) for side in size)
        corner = [int(rng.integers(side - part + 1)) for side, part in zip(size, (height, width), strict=True)]
        about, which_class, which_pixel = rng.random(3)
        if self.sampling == "foreground" and about < 0.5 and (classes := self._foreground(index)):
            places = classes[int(which_class * len(classes))]
            middle = divmod(int(places[int(which_pixel * len(places))]), size[1])
            sides = zip(middle, size, (height, width), strict=True)
            corner = [min(max(0, at - part // 2), side - part) for at, side, part in sides]
        return Box(corner[0], corner[1], height, width)

    def _foreground(self, index: int) -> list[np.ndarray]:
        """Of each class that an image shows, numbers (n,) of pixels, row by row; all are equally likely to be here."""
        if index not in self._places:
            rng = np.random.default_rng((self.seed, index))
            found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
            width = self.sizes[index][1]
            for top, mask in self._mask_bands(index):
                for class_id, inside in _classes(mask, self.labels):
                    places = np.flatnonzero(inside) + top * width
                    keys = rng.random(len(places))  # the pixels of the smallest keys stay
                    if class_id in found:
                        old = found[class_id]
                        places, keys = np.concatenate([old[0], places]), np.concatenate([old[1], keys])
                    kept = np.argsort(keys)[: self._remembered]
                    found[class_id] = places[kept], keys[kept]
            self._places[index] = [found[class_id][0] for class_id in sorted(found)]
        return self._places[index]

    def _read(self, index: int, box: Box) -> tuple[np.ndarray, np.ndarray]:
        sample = self.samples[index]
        if self._windowed(sample):
            source = sample.required_mask()
            values = read_mask_window(source, box, self.limits)
            return read_window(sample.image, box, self.limits, self.channels), self.labels.decode(values, source)
        image, mask = self._decoded.get(index) or self._decode(index)
        return image[box.slices].copy(), mask[box.slices].copy()  # copies, so that the whole need not stay in memory

    def _mask_bands(self, index: int) -> Iterator[tuple[int, np.ndarray]]:
        """A mask from top to bottom: first rows and class ids."""
        sample = self.samples[index]
        if not self._windowed(sample):
            yield 0, (self._decoded.get(index) or self._decode(index))[1]
            return
        (height, width), source = self.sizes[index], sample.required_mask()
        step = max(1, _BAND // width)
        for top in range(0, height, step):
            box = Box(top, 0, min(step, height - top), width)
            values = read_mask_window(source, box, ImageLimits(max_pixels=box.height * box.width))
            yield top, self.labels.decode(values, source)

    def _read_around(self, index: int, box: Box, margin: int) -> tuple[np.ndarray, np.ndarray]:
        """A crop with a margin; what of it the image does not have is black, or NaN in raw channels, and ignored."""
        inner = box.widened(margin, self.sizes[index])
        image, mask = self._read(index, inner)
        before = (margin - (box.top - inner.top), margin - (box.left - inner.left))
        shape = (box.height + 2 * margin, box.width + 2 * margin)
        if (inner.height, inner.width) == shape:
            return image, mask
        rows, columns = (slice(at, at + n) for at, n in zip(before, mask.shape, strict=True))
        empty, kind = (0, image.dtype) if self.channels is None else (math.nan, np.dtype(np.float32))
        around = (
            np.full((*shape, *image.shape[2:]), empty, kind),
            np.full(shape, self.labels.ignore_index, mask.dtype),
        )
        around[0][rows, columns], around[1][rows, columns] = image, mask
        return around


def margin(box: Box, changes: Changes) -> int:
    """Pixels around a crop that its changes can move into it, so that no borders come in where the image goes on."""
    if not changes.rotate and not changes.scale:
        return 0
    sides = (box.height, box.width)
    most = 0.0
    for side, other in (sides, sides[::-1]):
        angle = min(math.radians(changes.rotate), math.atan2(other, side))  # where a rotated crop reaches furthest
        most = max(most, (side * math.cos(angle) + other * math.sin(angle)) * (1 + changes.scale) - side)
    return math.ceil(most / 2) + 2  # bilinear


def _middle(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    rows, columns = (
        slice((n - part) // 2, (n - part) // 2 + part) for n, part in zip(array.shape, shape, strict=False)
    )
    return np.ascontiguousarray(array[rows, columns])


def _classes(mask: np.ndarray, labels: LabelFormat) -> list[tuple[int, np.ndarray]]:
    """Each class from 1 on that a mask shows, and where: bool (H, W)."""
    shown = [
        (class_id, unpack(mask, class_id) if labels.multilabel else mask == class_id)
        for class_id in range(1, labels.num_classes)
    ]
    return [(class_id, inside) for class_id, inside in shown if inside.any()]
