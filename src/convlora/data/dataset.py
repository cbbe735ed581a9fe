"""Checked samples as PyTorch reads them: decoded on demand, changed at random, reproducibly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from convlora.data.augmentation import AugmentationSettings, augment
from convlora.data.images import read_image
from convlora.data.masks import LabelFormat, read_mask, require_equal_sizes
from convlora.data.samples import Sample
from convlora.data.settings import ImageLimits


class SegmentationDataset(Dataset):
    """Images and masks of some samples, in their own sizes.

    Args:
        samples: Checked samples, all with a mask.
        labels: How the masks are read.
        limits: Of the images.
        augmentation: Random changes of the samples that are asked for by (epoch, index).
        seed: Of the random changes.
        cache_bytes: Decoded images and masks are kept in memory, up to this size, by each process that reads.
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
    ) -> None:
        self.samples = list(samples)
        self.labels = labels
        self.limits = limits
        self.augmentation = augmentation
        self.seed = seed
        self._decoded: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        """Decode one sample.

        Args:
            key: An index, for the sample as it is; or (epoch, index), for the sample changed as `augmentation` says
                by random numbers of (seed, epoch, index) alone: workers and resuming do not matter.

        Returns:
            "image": uint8 (H, W, 3); "mask": uint8 (H, W) class ids or `labels.ignore_index`; "name".

        Raises:
            DataError: a file cannot be used any more.
        """
        epoch, index = key if isinstance(key, tuple) else (None, key)
        image, mask = self._decoded.get(index) or self._decode(index)
        if epoch is not None and self.augmentation is not None and self.augmentation.enabled:
            view = epoch % self.augmentation.views if self.augmentation.views else epoch
            rng = np.random.default_rng((self.seed, view, index))
            image, mask = augment(image, mask, self.augmentation, rng, self.labels.ignore_index)
        return {"image": image, "mask": mask, "name": self.samples[index].name}

    def _decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        sample = self.samples[index]
        source = sample.required_mask()
        image, values = read_image(sample.image, self.limits), read_mask(source, self.limits)
        require_equal_sizes(sample, image.shape[:2], values.shape)
        mask = self.labels.decode(values, source)
        if image.nbytes + mask.nbytes <= self._room:
            self._room -= image.nbytes + mask.nbytes
            self._decoded[index] = image, mask
            for array in (image, mask):
                array.flags.writeable = False  # the same arrays are handed out again
        return image, mask


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys (epoch, index) of a data set, in an order that depends on (seed, epoch) alone."""

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is about; the first is 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return iter([(self.epoch, index) for index in order.tolist()])
