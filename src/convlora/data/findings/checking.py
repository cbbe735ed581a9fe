"""Look at every image and mask once, before anything is trained or scored with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
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
    samples = data.samples
    splits = split_samples(samples, settings, need_train=labels is None)
    used = subset_size(len(splits["train"]), settings)
    measured, problems = _measure_all(samples, settings, progress, every=1 if thorough else DETAILED)
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
    notes = [*data.notes, *notes]
    counts = [_class_counts(item.values, found) for _, item in measured]
    names = [sample.name for sample in samples]
    of_train = {sample.name: count for (sample, _), count in zip(measured, counts, strict=True)}
    of_train = {sample.name: of_train[sample.name] for sample in splits["train"]}
    if used < len(splits["train"]) or settings.train_images_per_class is not None:
        chosen, more = choose_subset(of_train, used, found, settings)
        notes += more
        splits["train"] = [sample for sample in splits["train"] if sample.name in chosen]
    split_of = {sample.name: split for split, members in splits.items() for sample in members}
    notes += mask_notes(names, counts, found)
    notes += class_notes([split_of.get(name, "unused") for name in names], counts, found)
    by_name = {sample.name: item for sample, item in measured}
    given = any(sample.split is not None for sample in samples)
    survey = Survey(by_name, split_of, found, settings, splits_given=given, image_size=image_size)
    findings = all_findings(survey) if labels is None else []
    notes += [str(finding) for finding in findings if finding.harm == "harmful"]
    training = [by_name[sample.name] for sample in splits["train"]]
    statistics = _channel_statistics(training, settings) if labels is None else None  # a finished model has its own
    notes += statistics.notes(settings.channel_statistics) if statistics else []
    sizes = sorted((item.size for _, item in measured), key=lambda size: (size[0] * size[1], size))
    classes = range(found.num_classes)
    return CheckedData(
        splits=splits,
        labels=found,
        notes=notes,
        class_pixels=tuple(sum(count[i] for count in counts) for i in classes),
        images_per_class=tuple(sum(count[i] > 0 for count in counts) for i in classes),
        ignored_pixels=sum(count[found.ignore_index] for count in counts),
        intensity=data.intensity,
        smallest=sizes[0],
        largest=sizes[-1],
        labelled_pixels=sum(item.size[0] * item.size[1] for _, item in measured)
        - sum(count[found.ignore_index] for count in counts),
        train_pixels={s.name: tuple(of_train[s.name][i] for i in classes) for s in splits["train"]},
        findings=findings,
        measured=by_name if thorough else {},
        statistics=statistics,
    )


def _channel_statistics(training: Sequence[Measured], settings: DataSettings) -> ChannelStatistics | None:
    if settings.channels is None or not training:
        return None
    statistics = ChannelStatistics.of(item.moments for item in training if item.moments is not None)
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
