"""Checked samples as PyTorch reads them: decoded on demand, changed at random, reproducibly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from convlora.data.augmentation.augment import augment
from convlora.data.augmentation.settings import AugmentationSettings
from convlora.data.pixels.channels import read_pixels
from convlora.data.pixels.masks import LabelFormat, read_mask, require_equal_sizes
from convlora.data.samples import Sample
from convlora.data.settings import ImageLimits

_FAR = 1_000_003  # epochs; a prime, so that few augmentation.views are other ones, too


class SegmentationDataset(Dataset):
    """Images and masks of some samples, in their own sizes.

    Args:
        samples: Checked samples, all with a mask.
        labels: How the masks are read.
        limits: Of the images.
        augmentation: Random changes of the samples that are asked for by (epoch, index).
        seed: Of the random changes.
        cache_bytes: Decoded images and masks are kept in memory, up to this size, by each process that reads.
        channels: Number of raw channels that the images are read as; None reads RGB.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: LabelFormat,
        *,
        limits: ImageLimits,
        augmentation: AugmentationSettings | None = None,
        seed: int = 0,
        cache_bytes: int = 0,
        channels: int | None = None,
    ) -> None:
        self.samples = list(samples)
        self.labels = labels
        self.limits = limits
        self.augmentation = augmentation
        self.seed = seed
        self.channels = channels
        self._decoded: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.samples)

    def sample_index(self, index: int) -> int:
        """Which of the samples an index shows."""
        return index

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """Decode one sample.

        Args:
            key: An index, for the sample as it is; or (epoch, index), for the sample changed as `augmentation` says
                by random numbers of (seed, epoch, index) alone: workers and resuming do not matter.

        Returns:
            "image": uint8 (H, W, 3), or (H, W, C) raw channels; "mask": uint8 (H, W) class ids or
            `labels.ignore_index`; "name".

        Raises:
            DataError: a file cannot be used any more.
        """
        epoch, index = key if isinstance(key, tuple) else (None, key)
        image, mask = self._decoded.get(index) or self._decode(index)
        if epoch is not None and self.augmentation is not None and self.augmentation.enabled:
            view = epoch % self.augmentation.views if self.augmentation.views else epoch
            rng = np.random.default_rng((self.seed, view, index))
            raw = self.channels is not None
            image, mask = augment(image, mask, self.augmentation, rng, self.labels.ignore_index, raw=raw)
        return {"image": image, "mask": mask, "name": self.samples[index].name}

    def _decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = self.samples[index]
        source = sample.required_mask()
        image = read_pixels(sample.image, self.limits, self.channels)
        values = read_mask(source, self.limits)
        require_equal_sizes(sample, image.shape[:2], values.shape)
        mask = self.labels.decode(values, source)
        if image.nbytes + mask.nbytes <= self._room:
            self._room -= image.nbytes + mask.nbytes
            self._decoded[index] = image, mask
            for array in (image, mask):
                array.flags.writeable = False  # the same arrays are handed out again
        return image, mask


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys (epoch, index) of a data set, in an order that depends on (seed, epoch) alone.

    Args:
        length: Of the data set.
        seed: Of the order.
        repeats: How often each index is in an epoch on average, at least 1: it is so often, rounded down or up, other
            ones in other epochs. Every epoch has the same length. The second time an index has the key of another
            epoch, far off, so that the image is changed in another way. None is once each.
    """

    def __init__(self, length: int, seed: int, repeats: Sequence[float] | None = None) -> None:
        if repeats is not None and (len(repeats) != length or not all(factor >= 1 for factor in repeats)):
            raise ValueError(f"{length} indices need as many repeats of at least 1")
        self.length = length
        self.seed = seed
        self.repeats = None if repeats is None else np.array(repeats, dtype=np.float64)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is about; the first is 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length if self.repeats is None else math.ceil(self.repeats.sum())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(self.length)
        if self.repeats is None:
            return iter([(self.epoch, index) for index in order.tolist()])
        # Systematic sampling: each has an interval as long as its factor, and comes once for each mark in it; the marks
        # are 1 apart. Rounding the length up has made the intervals no shorter.
        ends = np.cumsum(self.repeats[order])
        ends *= len(self) / ends[-1]
        ends[-1] = len(self)
        counts = np.diff(np.floor(ends + rng.random()), prepend=0.0).astype(int)
        keys = [
            (self.epoch + copy * _FAR, index)
            for index, count in zip(order.tolist(), counts.tolist(), strict=True)
            for copy in range(count)
        ]
        return iter([keys[place] for place in rng.permutation(len(keys)).tolist()])
