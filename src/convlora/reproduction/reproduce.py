"""Get the set, make the runs, score each test set, write the table; whatever is done already is not done again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import OpenerDirector

from convlora.data.catalog.get import Obtained, Progress, get_set
from convlora.data.catalog.sets import PaperSet
from convlora.errors import NonFiniteLossError, OutputError, WeightsError
from convlora.evaluation.evaluate import evaluate
from convlora.evaluation.settings import EvaluateSettings
from convlora.files import write_json, write_text
from convlora.reproduction.settings import OWN, ReproduceSettings
from convlora.reproduction.table import Reproduction, Run, as_json, markdown
from convlora.training.events import Report, silent
from convlora.training.folder import RunFolder
from convlora.training.presets import preset
from convlora.training.run import resume, train
from convlora.training.settings import TrainSettings, as_dict, from_dict

TABLE = "table.md"
RESULTS = "results.json"


@dataclass(frozen=True)
class Listener:
    """What is told to whom while a reproduction works.

    Attributes:
        progress: Getting the data, and scoring: stage, done, total.
        obtained: The data are there.
        announce: Each run, before it is made.
        report: The events of training.
    """

    progress: Progress = lambda stage, done, total: None
    obtained: Callable[[Obtained], None] = lambda data: None
    announce: Callable[[str], None] = lambda run: None
    report: Report = silent


def reproduce(
    settings: ReproduceSettings,
    training: TrainSettings,
    listener: Listener = Listener(),
    *,
    url: str | None = None,
    opener: OpenerDirector | None = None,
) -> Reproduction:
    """Make the paper's rows for a set again, and write table.md and results.json.

    Called again after an interruption, it continues. A run that fails because its numbers overflow is shown as failed.

    Args:
        settings: Which rows.
        training: Settings of all runs, as `convlora.training.presets.preset` gives them; data, output, method and seed
            are set here.
        listener: Is told what happens.
        url: As in `get_set`.
        opener: As in `get_set`.

    Raises:
        SettingsError: Before anything is done: of `settings`.
        DataError: The set cannot be got or used.
        OutputError: A run was made with other settings.
    """
    settings.validate()
    data = get_set(settings.source, progress=listener.progress, url=url, opener=opener)
    listener.obtained(data)
    runs = []
    for seed in settings.seeds:
        for method in settings.methods:
            listener.announce(f"{method}, seed {seed}")
            output = str(run_folder(settings, method, seed))
            own = dataclasses.replace(
                training, images=str(data.listing.absolute()), masks=None, output=output, method=method, seed=seed
            )
            runs.append(_make(own, data, settings, listener))
    notes = [f"archive: {data.record.source}, SHA-256 {data.record.sha256}", *data.layout.notes]
    result = Reproduction(data.entry, training.model, training.metric, changes_of(settings.name, training), runs, notes)
    write_json(settings.folder / RESULTS, as_json(result))
    write_text(settings.folder / TABLE, markdown(result, _reports(settings, data.entry)))
    return result


def changes_of(name: str, training: TrainSettings) -> dict[str, Any]:
    """Settings that differ from the preset's, nested ones with dots, but for those that a reproduction sets itself."""
    usual = as_dict(preset(name, images=training.images, output=training.output))
    own = {*OWN, "output", "model"}
    found: dict[str, Any] = {}
    for key, value in as_dict(training).items():
        if isinstance(value, dict):
            found |= {f"{key}.{inner}": v for inner, v in value.items() if v != usual[key][inner]}
        elif key not in own and value != usual[key]:
            found[key] = value
    return found


def _make(own: TrainSettings, data: Obtained, settings: ReproduceSettings, listener: Listener) -> Run:
    try:
        _train_or_resume(own, listener.report)
    except NonFiniteLossError as error:
        return Run(own.method, own.seed, error=" ".join(str(error).split()))
    scores = {}
    for test in data.entry.tests:
        folder = scores_folder(settings, own.method, own.seed, test.name)
        if not (folder / "report.html").is_file():  # it is written last
            chosen = EvaluateSettings(
                run=own.output,
                images=str(data.folder / test.csv),
                output=str(folder),
                batch_size=own.batch_size,
                device=own.device,
                precision=own.precision,
                max_megapixels=own.max_megapixels,
            )
            evaluate(chosen, lambda done, total: listener.progress("scoring", done, total))
        scores[test.name] = _read_scores(folder / "metrics.json")
    return Run(own.method, own.seed, scores)


def run_folder(settings: ReproduceSettings, method: str, seed: int) -> Path:
    """Where a run is."""
    return settings.folder / f"{method}-seed{seed}"


def scores_folder(settings: ReproduceSettings, method: str, seed: int, test: str) -> Path:
    """Where a run's scores on a test set are, with their report: in its folder, so that they go when it goes."""
    return run_folder(settings, method, seed) / "scores" / test.replace(" ", "-")


def _train_or_resume(settings: TrainSettings, report: Report) -> None:
    folder = RunFolder(settings.output)
    if not folder.config.is_file():
        train(settings, report)
        return
    made = from_dict(folder.settings(), source=folder.config)
    now = as_dict(settings.anchored())
    # the output is this folder, however it was called then
    changed = [key for key, value in as_dict(made).items() if key != "output" and value != now[key]]
    if changed:
        raise OutputError(
            f"{settings.output} was made with another {changed[0]}: {as_dict(made)[changed[0]]!r}, now "
            f"{now[changed[0]]!r}. Choose another --output, or give the old setting."
        )
    resume(settings.output, report)


def _read_scores(path: Path) -> dict[str, float | None]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["scores"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path} is not readable ({error!r}). Remove its folder to score the run again.") from error


def _reports(settings: ReproduceSettings, entry: PaperSet) -> dict[str, str]:
    found = {}
    for method in settings.methods:
        for seed in settings.seeds:
            for test in entry.tests:
                path = scores_folder(settings, method, seed, test.name) / "report.html"
                if path.is_file():
                    found[f"{method}, seed {seed}, {test.name}"] = path.relative_to(settings.folder).as_posix()
    return found
