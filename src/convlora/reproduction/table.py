"""Our scores beside the paper's: as rows for the terminal, as Markdown, and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from convlora import __version__
from convlora.data.catalog.sets import PaperSet
from convlora.objectives.metrics import DEFINITIONS
from convlora.reproduction.published import MODEL, PLAIN, PUBLISHED, REMARK, as_shown

HEAD = ("test set", "method", "score", "ours", "paper", "difference", "runs")


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        method: Its row.
        seed: Of it.
        scores: By test set, then by metric; None for an undefined score. Empty if the run failed.
        error: Why it failed.
    """

    method: str
    seed: int
    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Reproduction:
    """Everything that the table shows.

    Attributes:
        entry: The set.
        model: That was tuned.
        picked_by: Validation score that picked the checkpoints.
        changes: Settings that differ from the preset's, beside the model.
        runs: All of them, failed ones too.
        notes: On the data.
    """

    entry: PaperSet
    model: str
    picked_by: str
    changes: dict[str, Any]
    runs: list[Run]
    notes: list[str]

    @property
    def failures(self) -> list[str]:
        """A line on each failed run."""
        return [f"{run.method}, seed {run.seed}: failed: {run.error}" for run in self.runs if run.error]

    def lines(self) -> list[dict[str, Any]]:
        """One for each test set, method and metric, with plain values in the paper's units."""
        published = PUBLISHED[self.entry.name]
        methods = list(dict.fromkeys(run.method for run in self.runs))
        return [
            self._line(test.name, method, metric, published.figures.get((test.name, metric), {}).get(method))
            for test in self.entry.tests
            for method in methods
            for metric in published.metrics
        ]

    def _line(self, test: str, method: str, metric: str, paper: float | None) -> dict[str, Any]:
        mine = [run for run in self.runs if run.method == method]
        values = {
            run.seed: as_shown(metric, value)
            for run in mine
            if run.error is None and (value := run.scores[test].get(metric)) is not None
        }
        mean = statistics.fmean(values.values()) if values else None
        return {
            "test_set": test,
            "method": method,
            "metric": metric,
            "mean": mean,
            "sd": statistics.stdev(values.values()) if len(values) > 1 else None,
            "paper": paper,
            "difference": mean - paper if mean is not None and paper is not None else None,
            "by_seed": values,
            "runs": len(mine),
            "failed": sum(run.error is not None for run in mine),
        }

    def remarks(self) -> list[str]:
        """What a reader must know."""
        changed = "; ".join(f"{name}={value}" for name, value in self.changes.items())
        used = {metric: DEFINITIONS[metric] for metric in PUBLISHED[self.entry.name].metrics}
        return [
            self._model_remark(),
            f"paper: {REMARK}; “–”: not known here",
            "ours: mean ± standard deviation over the seeds, in percent but for MAE, at each image's own size",
            f"changed from the preset: {changed}" if changed else "settings: the preset's",
            self._pick_remark(),
            *(f"{metric}: {text}" for metric, text in used.items()),
            *self.notes,
        ]

    def _pick_remark(self) -> str:
        theirs = PUBLISHED[self.entry.name].picked_by
        other = f"the paper's code picks it by {theirs}" if theirs else "what the paper's code picks it by is not known"
        same = "as in the paper's code" if self.picked_by == theirs else other
        return f"the checkpoint of a run is picked by validation {self.picked_by}; {same}"

    def _model_remark(self) -> str:
        if self.model.rstrip("/").rpartition("/")[2] == MODEL.rpartition("/")[2]:
            return f"model: {self.model}, as the paper's"
        return f"model: {self.model}; THE PAPER'S FIGURES ARE OF SAM ViT-H ({MODEL}), so the rows are not comparable"


def rows(result: Reproduction) -> list[list[str]]:
    """The table with its head, as text."""
    return [list(HEAD), *(_cells(line) for line in result.lines())]


def _cells(line: Mapping[str, Any]) -> list[str]:
    digits = 4 if line["metric"] in PLAIN else 2
    sd = f" ± {line['sd']:.{digits}f}" if line["sd"] is not None else ""
    failed = f", {line['failed']} failed" if line["failed"] else ""
    return [
        line["test_set"],
        line["method"],
        line["metric"],
        "–" if line["mean"] is None else f"{line['mean']:.{digits}f}{sd}",
        "–" if line["paper"] is None else f"{line['paper']:.{digits}f}",
        "–" if line["difference"] is None else f"{line['difference']:+.{digits}f}",
        f"{len(line['by_seed'])} of {line['runs']}{failed}",
    ]


def markdown(result: Reproduction, reports: Mapping[str, str]) -> str:
    """The whole table.md.

    Args:
        result: What to show.
        reports: Title of each report with pictures → its path from table.md.
    """
    parts = [f"# {result.entry.title}", _table(rows(result))]
    lists: list[tuple[str, Sequence[str]]] = [
        ("Failed runs:", result.failures),
        ("", result.remarks()),
        ("With pictures:", [f"[{title}]({path})" for title, path in reports.items()]),
    ]
    for title, items in lists:
        if items:
            parts += [*([title] if title else []), "\n".join(f"- {item}" for item in items)]
    return "\n\n".join(parts) + "\n"


def _table(lines: Sequence[Sequence[str]]) -> str:
    text = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([text[0], "|---|---|---|---:|---:|---:|---:|", *text[1:]])


def as_json(result: Reproduction) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "convlora": __version__,
        "set": result.entry.name,
        "model": result.model,
        "paper_model": MODEL,
        "changes": result.changes,
        "lines": result.lines(),
        "failed": result.failures,
        "remarks": result.remarks(),
        "definitions": {metric: DEFINITIONS[metric] for metric in PUBLISHED[result.entry.name].metrics},
    }
