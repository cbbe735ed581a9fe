"""What a study found: one line a method in one table a data set, subset and model."""

from __future__ import annotations

import dataclasses
import datetime
import platform
from collections import defaultdict
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from convlora import __version__
from convlora.comparison.folds import fold_sets, join_runs
from convlora.comparison.plan import Cell, Group, Run
from convlora.comparison.records import Record
from convlora.comparison.statistics import Estimate, difference_estimate, holm, score_estimate
from convlora.comparison.study import Pick, Study
from convlora.errors import DataError

_LIBRARIES = ("torch", "transformers", "peft", "numpy")


@dataclass(frozen=True)
class Line:
    """A method in a table.

    Attributes:
        cell: Whose line it is.
        pick: Its learning rate; None if there is none.
        runs: Of the table that went well, with their records.
        failed: Runs that failed, of the tuning or of the table, with their records.
        missing: Runs that are still to be made; at least 1 if it is not known how many.
        score: On the test images; None without a run, or if no image has a valid pixel.
        difference: To the reference, over the seeds that both have; None for the reference itself.
        adjusted: The difference's p-value, adjusted for the number of p-values in the table.
    """

    cell: Cell
    pick: Pick | None
    runs: list[tuple[Run, Record]]
    failed: list[tuple[Run, Record]]
    missing: int
    score: Estimate | None = None
    difference: Estimate | None = None
    adjusted: float | None = None

    def mean(self, attribute: str) -> float | None:
        """Mean of a number in the records, such as seconds; None without a run."""
        return float(np.mean([getattr(record, attribute) for _, record in self.runs])) if self.runs else None


Table = tuple[Group, list[Line]]


def summarize_study(study: Study) -> list[Table]:
    """All tables, in the order of the plan; then those of all folds together, where the subsets are folds.

    Raises:
        DataError: The runs of a table were scored on different images.
    """
    groups: dict[Group, list[Cell]] = defaultdict(list)
    for cell in study.cells:
        groups[cell.group].append(cell)
    lines = {cell.folder: _line(study, cell) for cell in study.cells}
    tables = {group: [lines[cell.folder] for cell in cells] for group, cells in groups.items()}
    for group, methods in fold_sets(groups):
        joined = [_joined_line(group, [lines[cell.folder] for cell in cells]) for cells in methods]
        if any(line.runs for line in joined):
            tables[group] = joined
    return [(group, _compared(study, group, of_group)) for group, of_group in tables.items()]


def _joined_line(group: Group, folds: list[Line]) -> Line:
    """The line of all folds together; what failed and what is missing is said in the lines of the folds."""
    cell = dataclasses.replace(folds[0].cell, group=group, folder=folds[0].cell.folder.parent)
    picks = {line.pick for line in folds}
    return Line(cell, picks.pop() if len(picks) == 1 else None, join_runs(group, [line.runs for line in folds]), [], 0)


def _line(study: Study, cell: Cell) -> Line:
    pick, final = study.pick(cell), study.final(cell)
    wanted = {run.folder: run for run in (*study.tuning(cell), *final)}
    records = [(run, study.records[run.folder]) for run in wanted.values() if run.folder in study.records]
    good = [(run, record) for run, record in records if record.error is None and run in final]
    failed = [(run, record) for run, record in records if record.error is not None]
    return Line(cell, pick, good, failed, len(wanted) - len(records))


def _compared(study: Study, group: Group, lines: list[Line]) -> list[Line]:
    if len({(*record.images, len(record.classes)) for line in lines for _, record in line.runs}) > 1:
        raise DataError(
            f"{group.title}: the runs were scored on different test images or with different classes; their data "
            "settings must be alike."
        )
    metric = study.settings.metric
    # where the other lines have several seeds, one that is left of a method says too little about it
    least = min(2, len(study.settings.seeds))
    lines = [
        dataclasses.replace(line, score=score_estimate(_matrices(line.runs), metric, least=least))
        if line.runs
        else line
        for line in lines
    ]
    reference = next((line for line in lines if line.cell.method == study.settings.reference), None)
    if reference is None or not reference.runs:
        return lines
    theirs = {run.seed: (run, record) for run, record in reference.runs}
    differences: dict[int, Estimate | None] = {}
    for i, line in enumerate(lines):
        paired = [pair for pair in line.runs if pair[0].seed in theirs]
        if line is not reference and paired:
            others = [theirs[run.seed] for run, _ in paired]
            differences[i] = difference_estimate(_matrices(paired), _matrices(others), metric, least=least)
    p_values = {i: d.p_value for i, d in differences.items() if d is not None and d.p_value is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return [
        dataclasses.replace(line, difference=differences.get(i), adjusted=adjusted.get(i))
        for i, line in enumerate(lines)
    ]


def _matrices(runs: list[tuple[Run, Record]]) -> np.ndarray:
    return np.stack([record.matrices for _, record in runs])


def results_json(study: Study, tables: list[Table]) -> dict[str, Any]:
    """Everything, as plain values; the confusion matrix of each image is in the run's own record."""
    return {
        "convlora": __version__,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds"),
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "python": platform.python_version(),
        },
        "libraries": {name: version(name) for name in _LIBRARIES},
        "study": dataclasses.asdict(study.settings),
        "tables": [
            {**dataclasses.asdict(group), "lines": [_line_json(study, line) for line in lines]}
            for group, lines in tables
        ],
        "runs": [_run_json(run, study.records[run.folder]) for run in study.runs() if run.folder in study.records],
    }


def _line_json(study: Study, line: Line) -> dict[str, Any]:
    rates = {f"{rate:g}": study.validation(line.cell, rate) for rate in study.settings.learning_rates}
    return {
        "method": line.cell.method,
        "learning_rate": line.pick.learning_rate if line.pick else None,
        "edge_of_grid": line.pick.at_edge if line.pick else None,
        "validation_by_rate": {rate: None if np.isnan(score) else score for rate, score in rates.items()},
        "seeds": [run.seed for run, _ in line.runs],
        "test": dataclasses.asdict(line.score) if line.score else None,
        "difference": dataclasses.asdict(line.difference) if line.difference else None,
        "p_holm": line.adjusted,
        "trainable_parameters": line.mean("trainable"),
        "adapter_bytes": line.mean("adapter_bytes"),
        "seconds": line.mean("seconds"),
        "peak_memory_bytes": line.mean("peak_memory"),
        "failed": {run.folder.name: record.error for run, record in line.failed},
        "missing": line.missing,
    }


def _run_json(run: Run, record: Record) -> dict[str, Any]:
    values = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name != "confusions"}
    return {**dataclasses.asdict(run.cell.group), "method": run.cell.method, "folder": str(run.folder), **values}
