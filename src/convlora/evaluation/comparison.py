"""Train several methods on the same data with the same budget, and show them side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convlora.data.dataset import SegmentationDataset
from convlora.errors import DataError, OutputError, SettingsError
from convlora.evaluation.report import write_report
from convlora.evaluation.results import RunResult, describe_run
from convlora.evaluation.scoring import score
from convlora.files import output_errors, write_json
from convlora.inference.predictor import Predictor
from convlora.training.events import Report, silent
from convlora.training.folder import RunFolder
from convlora.training.run import resume, train
from convlora.training.settings import METHODS, TrainSettings, as_dict

UNTOUCHED = "untouched SAM"
REPORT = "report.html"
METRICS = "metrics.json"


@dataclass(frozen=True)
class Comparison:
    """Scores of the untouched model and of each run on the same held-out images."""

    baseline: RunResult
    results: list[RunResult]
    report: Path


def compare(
    settings: TrainSettings,
    methods: Sequence[str],
    *,
    title: str,
    announce: Callable[[str], None] = lambda method: None,
    report: Report = silent,
) -> Comparison:
    """Train each method into its own folder below `settings.output`, score all, and write report.html and metrics.json.

    Called again after an interruption, it continues; runs that are finished are not trained again.

    Args:
        settings: Of all runs, but for method and output.
        methods: In the order of the report; pictures are chosen by the last one.
        title: Of the report.
        announce: Called with each method before it is trained.
        report: As in `convlora.training.run.train`.

    Raises:
        SettingsError: Before anything is trained: a method is unknown or listed twice, or no images are set aside.
        OutputError: The folder holds other files, or runs with other settings.
    """
    _check(settings, methods)
    folders = []
    for method in methods:
        announce(method)
        output = Path(settings.output) / method
        folders.append(_train_or_resume(dataclasses.replace(settings, method=method, output=str(output)), report))
    split = folders[-1].read_split()
    if not split.samples.get("test"):
        raise DataError("no images were set aside as test, so there is nothing to compare on. Raise --test_fraction.")
    dataset = SegmentationDataset(
        split.samples["test"], split.labels, limits=settings.limits, channels=settings.channels
    )
    results = []
    for method, folder in zip(methods, folders, strict=True):
        predictor = Predictor.from_folder(folder.path, device=settings.device, precision=settings.precision)
        scores = score(predictor, dataset, split.labels, batch_size=settings.batch_size)
        results.append(describe_run(folder.path, predictor, scores, name=method))
    baseline = _untouched(results[-1], dataset, folders[-1], settings.batch_size)
    path = Path(settings.output) / REPORT
    write_report(path, results, dataset, split.labels, title=title, baseline=baseline)
    write_json(path.with_name(METRICS), [result.as_json() for result in (baseline, *results)])
    return Comparison(baseline, results, path)


def _check(settings: TrainSettings, methods: Sequence[str]) -> None:
    if not methods or len(set(methods)) < len(methods) or not set(methods) <= set(METHODS):
        raise SettingsError(f"methods={','.join(methods)!r} must be some of {', '.join(METHODS)}, each once.")
    output = Path(settings.output)
    with output_errors(output):
        names = sorted(entry.name for entry in output.iterdir()) if output.exists() else []
    foreign = [name for name in names if not name.startswith(".") and name not in (*METHODS, REPORT, METRICS)]
    if foreign:
        raise OutputError(f"{output} holds other files, such as {foreign[0]}. Choose a new output folder.")


def _train_or_resume(settings: TrainSettings, report: Report) -> RunFolder:
    folder = RunFolder(settings.output)
    if not folder.config.is_file():
        return train(settings, report)
    if folder.settings() != as_dict(settings.anchored()):
        raise OutputError(f"{settings.output} holds a run with other settings. Choose another output folder.")
    return resume(settings.output, report)


def _untouched(result: RunResult, dataset: SegmentationDataset, folder: RunFolder, batch_size: int) -> RunResult:
    with result.predictor.model.disable_adapter():
        scores = score(result.predictor, dataset, folder.read_split().labels, batch_size=batch_size)
    return dataclasses.replace(result, name=UNTOUCHED, trainable=0, adapter_bytes=0, scores=scores, log=[], settings={})
