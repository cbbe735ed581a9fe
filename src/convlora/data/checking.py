"""Look at every image and mask once, before anything is trained or scored with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from convlora.data.detection import Histograms, detect_labels, refuse_unknown_values
from convlora.data.images import read_image
from convlora.data.masks import LabelFormat, read_mask, require_equal_sizes
from convlora.data.notes import class_notes, leak_notes, mask_notes
from convlora.data.readers.finding import find_data
from convlora.data.readers.found import FoundData
from convlora.data.samples import Sample
from convlora.data.settings import DataSettings, ImageLimits
from convlora.data.sources import digest
from convlora.data.splitting import split_samples
from convlora.data.subsets import draw_subset, subset_size
from convlora.errors import DataError, MaskError

THREADS = 4


@dataclass(frozen=True)
class CheckedData:
    """A data set that can be used, and what was found in it."""

    splits: dict[str, list[Sample]]
    """Samples of train, val and test; of train those that are used."""
    labels: LabelFormat
    notes: list[str]
    """What the user should know: how masks were read, and what looks wrong but may be meant."""
    class_pixels: tuple[int, ...]
    """Pixels of each class in all masks."""
    images_per_class: tuple[int, ...]
    """Masks that hold each class."""
    ignored_pixels: int
    smallest: tuple[int, int]
    """(H, W) of the image of fewest pixels."""
    largest: tuple[int, int]
    """(H, W) of the image of most pixels."""


@dataclass(frozen=True)
class _Measured:
    """What remains of a decoded pair."""

    size: tuple[int, int]
    values: dict[int, int]
    """Pixels by mask value."""
    digest: str
    """Hash of the image's content."""


def check_data(
    settings: DataSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
    labels: LabelFormat | None = None,
) -> CheckedData:
    """Find, split and decode all samples and settle what their masks mean.

    Args:
        settings: Where the data are.
        progress: Called with the number of samples done and of all samples.
        labels: Classes of a finished model. They count instead of the settings' `classes` and `ignore_index`, the
            masks may use either encoding if there are two, and no image needs to be in the train split.

    Raises:
        SettingsError: settings contradict each other.
        DataError: something is wrong with the files; the message tells how many problems there are and the first.
    """
    data = find_data(settings)
    samples = data.samples
    splits = split_samples(samples, settings, need_train=labels is None)
    used = subset_size(len(splits["train"]), settings)
    measured, problems = _measure_all(samples, settings.limits, progress)
    histograms = {sample.required_mask(): item.values for sample, item in measured}
    try:
        found, notes = _labels(data, histograms, settings, labels)
    except MaskError as error:
        problems += [str(error)] if histograms else []
    if problems:
        raise DataError(_one_line(problems))
    notes = [*data.notes, *notes]
    counts = [_class_counts(item.values, found) for _, item in measured]
    names = [sample.name for sample in samples]
    if used < len(splits["train"]):
        notes.append(f"training on {used} of {len(splits['train'])} images")
        splits["train"] = _subset(splits["train"], used, dict(zip(names, counts, strict=True)), found, settings)
    split_of = {sample.name: split for split, members in splits.items() for sample in members}
    notes += mask_notes(names, counts, found)
    notes += class_notes([split_of.get(name, "unused") for name in names], counts, found)
    notes += leak_notes({s.name: item.digest for s, item in measured if s.name in split_of}, split_of)
    sizes = sorted((item.size for _, item in measured), key=lambda size: (size[0] * size[1], size))
    classes = range(found.num_classes)
    return CheckedData(
        splits=splits,
        labels=found,
        notes=notes,
        class_pixels=tuple(sum(count[i] for count in counts) for i in classes),
        images_per_class=tuple(sum(count[i] > 0 for count in counts) for i in classes),
        ignored_pixels=sum(count[found.ignore_index] for count in counts),
        smallest=sizes[0],
        largest=sizes[-1],
    )


def _labels(
    data: FoundData, histograms: Histograms, settings: DataSettings, known: LabelFormat | None
) -> tuple[LabelFormat, list[str]]:
    """What the masks mean: as their source says, else as their values tell; `known` are those of a finished model."""
    if data.labels is not None and (known is None or known.classes == data.labels.classes):
        refuse_unknown_values(histograms, data.labels)
        return data.labels, []
    if data.labels is not None and known is not None:
        raise MaskError(
            f"{settings.images} has the classes {', '.join(data.labels.classes)}, but the model has "
            f"{', '.join(known.classes)}. Score it on data of the same classes."
        )
    return detect_labels(
        histograms,
        classes=known.classes if known else settings.classes,
        mask_format=settings.mask_format,
        ignore_index=known.ignore_index if known else settings.ignore_index,
    )


def _measure_all(
    samples: Sequence[Sample], limits: ImageLimits, progress: Callable[[int, int], None] | None
) -> tuple[list[tuple[Sample, _Measured]], list[str]]:
    """What could be measured, and what is wrong with the rest; at most one decoded pair a thread is in memory."""
    measured = []
    problems = []
    pool = ThreadPoolExecutor(THREADS)
    try:
        results = pool.map(lambda sample: _measure(sample, limits), samples)
        for done, (sample, result) in enumerate(zip(samples, results, strict=True), 1):
            if isinstance(result, DataError):
                problems.append(str(result))
            else:
                measured.append((sample, result))
            if progress is not None:
                progress(done, len(samples))
    finally:
        pool.shutdown(cancel_futures=True)  # on Ctrl-C do not decode the rest first
    return measured, problems


def _measure(sample: Sample, limits: ImageLimits) -> _Measured | DataError:
    try:
        height, width, _ = read_image(sample.image, limits).shape
        values = read_mask(sample.required_mask(), limits)
        require_equal_sizes(sample, (height, width), values.shape)
        return _Measured((height, width), _histogram(values), digest(sample.image))
    except DataError as error:
        return error


def _histogram(values: np.ndarray) -> dict[int, int]:
    if values.min() >= 0 and values.max() < 2**16:  # ten times faster than np.unique
        every = np.bincount(values.ravel())
        found = np.flatnonzero(every)
        counts = every[found]
    else:
        found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _one_line(problems: list[str], shown: int = 5) -> str:
    if len(problems) == 1:
        return problems[0]
    more = f" (and {len(problems) - shown} more)" if len(problems) > shown else ""
    return f"{len(problems)} problems: " + "; ".join(text.removesuffix(".") for text in problems[:shown]) + f"{more}."


def _subset(
    train: Sequence[Sample], size: int, counts: Mapping[str, Counter[int]], labels: LabelFormat, settings: DataSettings
) -> list[Sample]:
    classes = {sample.name: set(counts[sample.name]) - {labels.ignore_index} for sample in train}
    seed = settings.split_seed if settings.subset_seed is None else settings.subset_seed
    chosen = draw_subset(classes, size, seed)
    return [sample for sample in train if sample.name in chosen]


def _class_counts(values: dict[int, int], labels: LabelFormat) -> Counter[int]:
    """Pixels of a mask by class id or `ignore_index`."""
    mapping = labels.mapping()
    return Counter({mapping[value]: count for value, count in values.items()})
