"""Look at every image and mask once, before anything is trained or scored with them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from convlora.data.findings.finding import Finding, Survey
from convlora.data.findings.gathering import all_findings
from convlora.data.findings.meaning import settle_labels
from convlora.data.findings.measuring import Measured, measure
from convlora.data.findings.notes import class_notes, mask_notes
from convlora.data.pixels.masks import LabelFormat
from convlora.data.pixels.statistics import ChannelStatistics
from convlora.data.readers.finding import find_data
from convlora.data.readers.found import FoundData
from convlora.data.samples import Sample
from convlora.data.sampling.splitting import split_samples
from convlora.data.sampling.subsets import choose_subset, subset_size
from convlora.data.settings import DataSettings
from convlora.errors import DataError, MaskError, SettingsError

THREADS = 4
DETAILED = 16
"""Of so many pairs one is measured in detail where the check must not take longer than decoding."""


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
    labelled_pixels: int = 0
    """Pixels that are not ignored in all masks; where classes overlap, less than `class_pixels` together."""
    train_pixels: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Pixels of each class in the mask of each training image that is used, by name of the sample."""
    intensity: str = "auto"
    """How values of more than 8 bits were read; see `convlora.data.scientific.windows`."""
    findings: list[Finding] = field(default_factory=list)
    """What is, or looks, wrong, the most harmful first; those that are harmful are among the notes, too."""
    measured: dict[str, Measured] = field(default_factory=dict)
    """Figures of every pair by name of the sample; only of a thorough check."""
    statistics: ChannelStatistics | None = None
    """Of raw channels over the training images that are used; None for RGB."""


def check_data(
    settings: DataSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
    labels: LabelFormat | None = None,
    image_size: int | None = None,
    thorough: bool = False,
) -> CheckedData:
    """Find, split and decode all samples and settle what their masks mean.

    Args:
        settings: Where the data are.
        progress: Called with the number of samples done and of all samples.
        labels: Classes of a finished model. They count instead of the settings' `classes` and `ignore_index`, the
            masks may use either encoding if there are two, no image needs to be in the train split, and nothing is
            looked for beyond errors.
        image_size: Side of the model's input in pixels, which objects are held against.
        thorough: Measure every pair in detail, which takes longer than to decode it, and keep the figures.

    Raises:
        SettingsError: settings contradict each other.
        DataError: something is wrong with the files; the message tells how many problems there are and the first.
    """
    data = find_data(settings)
    splits = split_samples(data.samples, settings, need_train=labels is None)
    used = subset_size(len(splits["train"]), settings)
    by_name, found, notes = _measured_and_settled(data, settings, progress, labels, every=1 if thorough else DETAILED)
    counts = {name: _class_counts(item.values, found) for name, item in by_name.items()}
    if used < len(splits["train"]) or settings.train_images_per_class is not None:
        splits["train"], more = _subset(splits["train"], counts, used, found, settings)
        notes += more
    split_of = {sample.name: split for split, members in splits.items() for sample in members}
    every = list(counts.values())
    notes += mask_notes(list(counts), every, found)
    notes += class_notes([split_of.get(name, "unused") for name in counts], every, found)
    given = any(sample.split is not None for sample in data.samples)
    survey = Survey(by_name, split_of, found, settings, splits_given=given, image_size=image_size)
    findings = all_findings(survey) if labels is None else []
    notes += [str(finding) for finding in findings if finding.harm == "harmful"]
    statistics = _channel_statistics(by_name, splits["train"], settings) if labels is None else None
    notes += statistics.notes(settings.channel_statistics) if statistics else []
    sizes = sorted((item.size for item in by_name.values()), key=lambda size: (math.prod(size), size))
    ignored, classes = sum(count[found.ignore_index] for count in every), range(found.num_classes)
    return CheckedData(
        splits=splits,
        labels=found,
        notes=notes,
        class_pixels=tuple(sum(count[i] for count in every) for i in classes),
        images_per_class=tuple(sum(count[i] > 0 for count in every) for i in classes),
        ignored_pixels=ignored,
        intensity=data.intensity,
        smallest=sizes[0],
        largest=sizes[-1],
        labelled_pixels=sum(map(math.prod, sizes)) - ignored,
        train_pixels={s.name: tuple(counts[s.name][i] for i in classes) for s in splits["train"]},
        findings=findings,
        measured=by_name if thorough else {},
        statistics=statistics,
    )


def _measured_and_settled(
    data: FoundData,
    settings: DataSettings,
    progress: Callable[[int, int], None] | None,
    labels: LabelFormat | None,
    every: int,
) -> tuple[dict[str, Measured], LabelFormat, list[str]]:
    """Figures of all samples by name, what their masks mean, and notes; or one error that tells all problems."""
    measured, problems = _measure_all(data.samples, settings, progress, every)
    histograms = {sample.required_mask(): item.values for sample, item in measured}
    try:
        found, notes = settle_labels(data, histograms, settings, labels)
    except MaskError as error:
        problems += [str(error)] if histograms else []
    except SettingsError:
        if not problems:  # else the files that cannot be read may be the reason
            raise
    if problems:
        raise DataError(_one_line(problems))
    return {sample.name: item for sample, item in measured}, found, [*data.notes, *notes]


def _subset(
    train: Sequence[Sample], counts: Mapping[str, Counter[int]], size: int, labels: LabelFormat, settings: DataSettings
) -> tuple[list[Sample], list[str]]:
    """The training samples that are used, and notes; see `choose_subset`."""
    chosen, notes = choose_subset({sample.name: counts[sample.name] for sample in train}, size, labels, settings)
    return [sample for sample in train if sample.name in chosen], notes


def _channel_statistics(
    measured: Mapping[str, Measured], train: Sequence[Sample], settings: DataSettings
) -> ChannelStatistics | None:
    """Those of the training images that are used; a finished model brings its own."""
    if settings.channels is None or not train:
        return None
    moments = (measured[sample.name].moments for sample in train)
    statistics = ChannelStatistics.of(one for one in moments if one is not None)
    if settings.channel_statistics == "sam":
        statistics.require_bytes()
    return statistics


def _measure_all(
    samples: Sequence[Sample], settings: DataSettings, progress: Callable[[int, int], None] | None, every: int
) -> tuple[list[tuple[Sample, Measured]], list[str]]:
    """What could be measured, and what is wrong with the rest; at most one decoded pair a thread is in memory."""
    measured = []
    problems = []
    pool = ThreadPoolExecutor(THREADS)
    try:
        details = [index % every == 0 for index in range(len(samples))]
        results = pool.map(lambda sample, detailed: _measure(sample, settings, detailed), samples, details)
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


def _measure(sample: Sample, settings: DataSettings, details: bool) -> Measured | DataError:
    try:
        return measure(
            sample,
            settings.limits,
            details=details,
            channels=settings.channels,
            display_channels=settings.display_channels,
        )
    except DataError as error:
        return error


def _one_line(problems: list[str], shown: int = 5) -> str:
    if len(problems) == 1:
        return problems[0]
    more = f" (and {len(problems) - shown} more)" if len(problems) > shown else ""
    texts = [text.removesuffix(".") for text in problems[:shown]]
    remedies = {text.partition(". ")[2] for text in texts}
    shared = f". {remedies.pop()}" if len(remedies) == 1 and "" not in remedies else ""  # said once
    return f"{len(problems)} problems: " + "; ".join(text.removesuffix(shared) for text in texts) + f"{more}{shared}."


def _class_counts(values: dict[int, int], labels: LabelFormat) -> Counter[int]:
    """Pixels of a mask by class id or `ignore_index`."""
    counts: Counter[int] = Counter()
    for value, count in values.items():
        for class_id in labels.meaning(value) or ():
            counts[class_id] += count
    return counts
