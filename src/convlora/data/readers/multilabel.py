"""Mask files of one channel a class, whose classes may overlap, as bit fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convlora.data.labels.bits import IGNORED, MOST_CLASSES, pack
from convlora.data.labels.format import LabelFormat, value_list
from convlora.data.pixels.arrays import is_array
from convlora.data.pixels.channels import read_channels
from convlora.data.pixels.decoding import opened
from convlora.data.pixels.tiffs import is_tiff
from convlora.data.readers.found import FoundData
from convlora.data.samples import Sample
from convlora.data.settings import BACKGROUND, DataSettings, ImageLimits
from convlora.errors import ImageError, MaskError, SettingsError

_LOOKED_AT = 16  # masks beside the first
_LOSSY = (".jpg", ".jpeg", ".webp")
_ONE_CHANNEL = ("1", "L", "P", "I", "F", "LA", "PA")
_SAMPLES_PER_PIXEL = 277  # of TIFF; Pillow leaves out those that it does not know
_FOREGROUND = 255  # as `ignore_index` it cannot be told from the usual value of what is there


@dataclass(frozen=True)
class ChannelMask:
    """A mask file in which channel c is non-zero where class c is."""

    path: Path
    channels: int
    """How many there must be; an opaque alpha channel is none of them."""
    named: int
    """How many of them are classes; the others must be empty, as the last one of an RGB picture of two classes."""
    ignore_index: int | None
    """Value of pixels that are ignored, in whichever channel; None if there is none."""

    def __str__(self) -> str:
        return str(self.path)

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """Bit fields int32 (H, W), see `convlora.data.labels.bits`.

        Raises:
            ImageError: The file cannot be read.
            MaskError: It has another number of channels, or one of them several values.
        """
        if self.path.suffix.lower() in _LOSSY:
            raise MaskError(f"{self.path}: lossy compression smears the borders of masks. Save PNG or TIFF.")
        values = _without_alpha(self.path, read_channels(self.path, limits))
        if values.shape[2] != self.channels:
            raise MaskError(
                f"{self.path}: has {_counted(values.shape[2])}, but other masks have {self.channels}; with "
                "task=multilabel each class is a channel of every mask."
            )
        ignored = values == self.ignore_index if self.ignore_index is not None else np.zeros(values.shape, dtype=bool)
        inside = (values != 0) & ~ignored
        if inside[..., self.named :].any():
            raise MaskError(
                f"{self.path}: has {_counted(self.channels)}, but --classes names {self.named} beside the background, "
                "and the others are not empty. Name all; --class_map NAME=background leaves one out."
            )
        for number in range(self.channels):
            require_one_value(f"{self.path}, channel {number + 1}", values[..., number][inside[..., number]])
        fields = pack(np.moveaxis(inside, -1, 0))
        fields[ignored.any(-1)] = IGNORED
        return fields


def require_one_value(source: str, values: np.ndarray) -> None:
    """Check the values that say of one class that it is there: all are equal.

    Raises:
        MaskError: They are not, or not numbers.
    """
    if not values.size or (np.isfinite(values).all() and values.min() == values.max()):
        return
    found = np.unique(values)
    names = value_list(found) if np.isfinite(found).all() else "not a number"
    raise MaskError(
        f"{source}: holds {names} beside 0, but one value says where the class is. Threshold the mask; ignored pixels "
        "may have a value of their own, which is not 255, with --ignore_index."
    )


def ignored_value(settings: DataSettings) -> int | None:
    """The value of ignored pixels in masks whose other values only say where a class is."""
    return None if settings.ignore_index == _FOREGROUND else settings.ignore_index


def with_channels(data: FoundData, settings: DataSettings) -> FoundData:
    """Read masks of several channels as one class a channel, if the first mask is such a file; else data as they are.

    Raises:
        ImageError: A mask that is looked at cannot be read.
        MaskError: Others have several channels, but the first has one; or there are more than classes may be.
        SettingsError: There are more names of classes than channels, or the masks' format is given as another.
    """
    files = [sample.mask for sample in data.samples if isinstance(sample.mask, Path)]
    if data.labels is not None or not files:
        return data
    first, *others = files
    count = _count(first, settings.limits)
    if count == 1:
        _refuse_other_counts(first, others[:: -(-len(others) // _LOOKED_AT) or 1], settings.limits)
        return data
    if settings.mask_format != "auto":
        raise SettingsError(
            f"mask_format={settings.mask_format} is for masks of one channel, but {first} has {count}, of which "
            "task=multilabel makes a class each; leave it out."
        )
    if count > MOST_CLASSES:
        raise MaskError(f"{first}: has {count} channels; up to {MOST_CLASSES} classes may overlap.")
    classes = settings.classes or [BACKGROUND, *(f"class {number}" for number in range(1, count + 1))]
    if len(classes) > count + 1:
        raise SettingsError(
            f"classes={','.join(classes)} are {len(classes) - 1} beside the background, but the masks have {count} "
            f"channels, such as {first}."
        )
    ignored = ignored_value(settings)
    return dataclasses.replace(
        data,
        samples=[_by_channel(sample, count, len(classes) - 1, ignored) for sample in data.samples],
        labels=LabelFormat(tuple(classes), "bits", IGNORED, multilabel=True),
        named=False,
        notes=[*data.notes, f"masks of {count} channels: channel c is not 0 where class c is"],
    )


def _counted(channels: int) -> str:
    return "1 channel" if channels == 1 else f"{channels} channels"


def _by_channel(sample: Sample, count: int, named: int, ignore_index: int | None) -> Sample:
    if not isinstance(sample.mask, Path):
        return sample
    return dataclasses.replace(sample, mask=ChannelMask(sample.mask, count, named, ignore_index))


def _refuse_other_counts(first: Path, others: Sequence[Path], limits: ImageLimits) -> None:
    different = next(((path, count) for path in others if (count := _count(path, limits)) > 1), None)
    if different is not None:
        raise MaskError(
            f"{first}: has 1 channel, but {different[0]} has {different[1]}; with task=multilabel each class is a "
            "channel of every mask."
        )


def _count(path: Path, limits: ImageLimits) -> int:
    """Channels of a file, each of which may be a class."""
    try:
        with opened(path, limits) as image:
            several = image.format == "TIFF" and image.tag_v2.get(_SAMPLES_PER_PIXEL, 1) > 1
            if not several and (image.mode in _ONE_CHANNEL or image.mode.startswith("I;16")):
                return 1
    except ImageError:
        if not is_tiff(path):
            raise
    return int(_without_alpha(path, read_channels(path, limits)).shape[2])


def _without_alpha(path: Path, values: np.ndarray) -> np.ndarray:
    """Channels of a picture without an opaque alpha channel; of other files all."""
    if is_tiff(path) or is_array(path) or values.shape[2] not in (2, 4):
        return values
    if (values[..., -1] != 255).any():
        raise MaskError(
            f"{path}: its fourth channel is alpha, and some pixels are transparent, so it is not sure what they mean. "
            "Save masks of more than three classes as TIFF, or as one file a class."
        )
    return values[..., :-1]
