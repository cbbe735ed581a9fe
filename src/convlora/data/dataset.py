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
    """Images and masks of some samples, in their own sizes."""

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: LabelFormat,
        *,
        limits: ImageLimits,
        augmentation: AugmentationSettings | None = None,
        seed: int = 0,
    ) -> None:
        self.samples = list(samples)
        self.labels = labels
        self.limits = limits
        self.augmentation = augmentation
        self.seed = seed

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
        sample = self.samples[index]
        path = sample.required_mask()
        image, values = read_image(sample.image, self.limits), read_mask(path, self.limits)
        require_equal_sizes(sample, image.shape[:2], values.shape)
        mask = self.labels.decode(values, path)
        if epoch is not None and self.augmentation is not None:
            rng = np.random.default_rng((self.seed, epoch, index))
            image, mask = augment(image, mask, self.augmentation, rng, self.labels.ignore_index)
        return {"image": image, "mask": mask, "name": sample.name}


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
