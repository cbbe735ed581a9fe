"""Mean and standard deviation of raw channels, exact over any number of images that are seen once."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convlora.errors import DataError

_BLOCK = 1 << 20  # values of a channel that are converted to float64 at a time


@dataclass(frozen=True)
class Moments:
    """What remains of the values of each channel (C,), in raw units; NaN, no data, counts nowhere."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    """Sum of the squared distances from the mean."""
    low: np.ndarray
    high: np.ndarray
    missing: int
    """Pixels without data in some channel."""
    types: frozenset[str]

    @classmethod
    def of(cls, image: np.ndarray) -> Moments:
        """Of one image (H, W, C)."""
        flat = image.reshape(-1, image.shape[-1])
        blocks = [_of_block(flat[i : i + _BLOCK]) for i in range(0, len(flat), _BLOCK)]
        return functools.reduce(operator.add, blocks)

    def __add__(self, other: Moments) -> Moments:
        """Of both together (Chan, Golub and LeVeque 1979): no sum of large squares is ever subtracted."""
        count = self.count + other.count
        share = np.divide(other.count, count, out=np.zeros(len(count)), where=count > 0)
        distance = other.mean - self.mean
        return Moments(
            count,
            self.mean + distance * share,
            self.squares + other.squares + distance**2 * self.count * share,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.missing + other.missing,
            self.types | other.types,
        )


def _of_block(flat: np.ndarray) -> Moments:
    values = flat.astype(np.float64)
    there = ~np.isnan(values)
    count = there.sum(0)
    mean = np.divide(values.sum(0, where=there), count, out=np.zeros(len(count)), where=count > 0)
    return Moments(
        count,
        mean,
        ((values - mean) ** 2).sum(0, where=there),
        values.min(0, where=there, initial=math.inf),
        values.max(0, where=there, initial=-math.inf),
        int(np.count_nonzero(~there.all(1))),
        frozenset([flat.dtype.name]),
    )


@dataclass(frozen=True)
class ChannelStatistics:
    """Of each channel over the training images, in raw units."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Of the whole population; 0 where a channel has one value throughout."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    missing: int
    """Pixels without data."""
    types: tuple[str, ...]
    """Types of numbers that the images store."""

    @classmethod
    def of(cls, images: Iterable[Moments]) -> ChannelStatistics:
        """Of at least one image.

        Raises:
            DataError: a channel is without data throughout.
        """
        every = functools.reduce(operator.add, images)
        if empty := [channel for channel, count in enumerate(every.count) if not count]:
            raise DataError(f"channel {empty[0]} (from 0) of the training images is NaN throughout; leave it out.")
        std = np.sqrt(every.squares / every.count)
        mean, deviation, low, high = (tuple(each.tolist()) for each in (every.mean, std, every.low, every.high))
        return cls(mean, deviation, low, high, every.missing, tuple(sorted(every.types)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ChannelStatistics:
        """What `dataclasses.asdict` made of one, after a way through JSON.

        Raises:
            TypeError, ValueError, KeyError: it is none.
        """
        lists = {name: tuple(float(x) for x in values[name]) for name in ("mean", "std", "low", "high")}
        return cls(**lists, missing=int(values["missing"]), types=tuple(map(str, values["types"])))

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)

    def normalisation(self, rgb: tuple[Sequence[float], Sequence[float]] | None) -> tuple[list[float], list[float]]:
        """What is subtracted from each channel, and what it is divided by then.

        Args:
            rgb: Mean and deviation in 0…1 that SAM takes for the first three channels, 8-bit RGB; None goes by the
                data alone.

        Raises:
            DataError: the images are not of 8 bits, and `rgb` is given.
        """
        mean, std = list(self.mean), [value if np.float32(value) else 1.0 for value in self.std]
        if rgb is not None:
            self.require_bytes()
            for channel, (centre, spread) in enumerate(zip(*rgb, strict=True)):
                # in float32, so that RGB among other channels gives SAM the very same bits as an RGB picture
                mean[channel] = float(np.float32(centre) * 255)
                std[channel] = float(np.float32(spread) * 255)
        return mean, std

    def require_bytes(self) -> None:
        """Raise a `DataError` unless all images are of 8 bits, as SAM's statistics are for."""
        if self.types != ("uint8",):
            raise DataError(
                f"channel_statistics='sam' is for images of 8 bits, uint8, and these are {', '.join(self.types)}. "
                "Use --channel_statistics data."
            )

    def lines(self) -> list[str]:
        """One line a channel, for people."""
        kinds = ", ".join(self.types)
        rows = zip(self.mean, self.std, self.low, self.high, strict=True)
        return [
            f"channel {i}: mean {mean:.6g}, standard deviation {std:.6g}, {low:g} to {high:g} ({kinds})"
            for i, (mean, std, low, high) in enumerate(rows)
        ]

    def notes(self, statistics: str) -> list[str]:
        """What the user should know; `statistics` is the setting channel_statistics."""
        notes = []
        if constant := [str(i) for i, std in enumerate(self.std) if not std]:
            notes.append(f"channels that have one value throughout: {', '.join(constant)}")
        if self.missing:
            notes.append(f"{self.missing} pixels of the training images are without data in some channel (NaN)")
        if statistics == "data" and len(self.mean) >= 3 and self.types == ("uint8",):
            notes.append(
                "if the first three channels are red, green and blue, --channel_statistics sam gives SAM the values "
                "that it knows"
            )
        return notes
