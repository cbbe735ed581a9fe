"""Train several methods on the same data with the same budget, and show them side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convlora.data.dataset import SegmentationDataset
from convlora.errors import OutputError
from convlora.evaluation.report import write_report
from convlora.evaluation.results import RunResult, describe_run
from convlora.evaluation.scoring import score
from convlora.files import write_json
from convlora.inference.predictor import Predictor
from convlora.training.events import Report, silent
from convlora.training.folder import RunFolder
from convlora.training.run import resume, train
from convlora.training.settings import TrainSettings, as_dict

UNTOUCHED = "untouched SAM"


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
    """
    folders = []
    for method in methods:
        announce(method)
        output = Path(settings.output) / method
        folders.append(_train_or_resume(dataclasses.replace(settings, method=method, output=str(output)), report))
    split = folders[-1].read_split()
    dataset = SegmentationDataset(split.samples["test"], split.labels, limits=settings.limits)
    results = []
    for method, folder in zip(methods, folders, strict=True):
        predictor = Predictor.from_folder(folder.path, device=settings.device)
        scores = score(predictor, dataset, split.labels, batch_size=settings.batch_size)
        results.append(describe_run(folder.path, predictor, scores, name=method))
    baseline = _untouched(results[-1], dataset, folders[-1], settings.batch_size)
    path = Path(settings.output) / "report.html"
    write_report(path, results, dataset, split.labels, title=title, baseline=baseline)
    write_json(path.with_name("metrics.json"), [result.as_json() for result in (baseline, *results)])
    return Comparison(baseline, results, path)


def _train_or_resume(settings: TrainSettings, report: Report) -> RunFolder:
    folder = RunFolder(settings.output)
    if not folder.config.is_file():
        return train(settings, report)
    if folder.settings() != as_dict(settings):
        raise OutputError(f"{settings.output} holds a run with other settings. Choose another output folder.")
    return resume(settings.output, report)


def _untouched(result: RunResult, dataset: SegmentationDataset, folder: RunFolder, batch_size: int) -> RunResult:
    with result.predictor.model.disable_adapter():
        scores = score(result.predictor, dataset, folder.read_split().labels, batch_size=batch_size)
    return dataclasses.replace(result, name=UNTOUCHED, trainable=0, adapter_bytes=0, scores=scores, log=[], settings={})
