"""Where a study stands: which runs have ended, which rate each method got, and which runs are missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convlora.comparison.plan import Cell, Run, plan
from convlora.comparison.records import Record, changed_setting, forget, left_nothing, record_path
from convlora.comparison.settings import CompareSettings
from convlora.errors import OutputError
from convlora.objectives.metrics import best


@dataclass(frozen=True)
class Pick:
    """The learning rate that a cell got.

    Attributes:
        learning_rate: With the best mean validation score over the tuning seeds; the smaller one of equals.
        at_edge: Whether it is the smallest or largest of the grid, so that a better one may lie outside.
    """

    learning_rate: float
    at_edge: bool


class Study:
    """The plan, and the records of the runs that have ended."""

    def __init__(self, settings: CompareSettings) -> None:
        self.settings = settings
        self.cells = plan(settings)
        seeds = dict.fromkeys((*settings.tuning_seeds, *settings.seeds))
        self._runs = [cell.run(rate, seed) for cell in self.cells for rate in settings.learning_rates for seed in seeds]
        self.records: dict[Path, Record] = {}
        self.outdated: set[Path] = set()  # folders of failed runs whose settings have changed

    def open(self) -> None:
        """Look at what is there.

        Raises:
            OutputError: A run was made with other settings. One that failed without a checkpoint may be.
        """
        self.refresh()
        for run in self.runs():
            record = self.records.get(run.folder)
            change = changed_setting(run.folder, run.settings, record)
            if change and left_nothing(run.folder, record):
                self.outdated.add(run.folder)
            elif change:
                raise OutputError(
                    f"{run.folder} was made with other settings: {change}. Give the old setting, choose another output "
                    f"folder, or remove {run.folder} and {record_path(run.folder).name} beside it."
                )

    def to_retry(self) -> list[Run]:
        """Failed runs that shall be made again: all if asked for, else those whose settings have changed."""
        return [
            run
            for folder, run in {run.folder: run for run in self.runs()}.items()
            if folder in self.records
            and self.records[folder].error is not None
            and (self.settings.retry_failed or folder in self.outdated)
        ]

    def forget_failures(self) -> None:
        """Remove what is left of the failed runs that shall be made again."""
        for run in self.to_retry():
            forget(run.folder)
            del self.records[run.folder]

    def refresh(self) -> None:
        """Read the records that have come."""
        # listed once for each cell: to ask for each of thousands of files, again and again, takes its time
        there = {cell.folder: {path.name for path in cell.folder.glob("*.json")} for cell in self.cells}
        for run in self.runs():
            if run.folder not in self.records and record_path(run.folder).name in there[run.cell.folder]:
                record = Record.read(run.folder)
                if record is not None:
                    self.records[run.folder] = record

    def tuning(self, cell: Cell) -> list[Run]:
        """The runs by which a cell's rate is picked; none if there is nothing to pick."""
        if len(self.settings.learning_rates) == 1:
            return []
        return [cell.run(rate, seed) for rate in self.settings.learning_rates for seed in self.settings.tuning_seeds]

    def pick(self, cell: Cell) -> Pick | None:
        """The rate of a cell; None as long as runs are missing, or if there is none whose runs all went well."""
        rates = self.settings.learning_rates
        if len(rates) == 1:
            return Pick(rates[0], False)
        if any(run.folder not in self.records for run in self.tuning(cell)):
            return None
        scores = {rate: self.validation(cell, rate) for rate in sorted(rates)}
        valid = {rate: score for rate, score in scores.items() if not math.isnan(score)}
        if not valid:
            return None
        top = best(valid.values(), self.settings.metric)
        rate = next(rate for rate in valid if valid[rate] == top)  # the first of equals
        return Pick(rate, rate in (min(rates), max(rates)))

    def validation(self, cell: Cell, rate: float) -> float:
        """Mean best validation score over the tuning seeds; NaN if one of these runs failed or is missing."""
        records = [self.records.get(cell.run(rate, seed).folder) for seed in self.settings.tuning_seeds]
        scores = [record.validation if record is not None else None for record in records]
        return float(np.mean([math.nan if score is None else score for score in scores]))

    def final(self, cell: Cell) -> list[Run]:
        """The runs of a cell's line in the table; none as long as its rate is not known."""
        pick = self.pick(cell)
        return [] if pick is None else [cell.run(pick.learning_rate, seed) for seed in self.settings.seeds]

    def missing(self) -> list[Run]:
        """Runs that can be made now, each once."""
        wanted = {
            run.folder: run
            for cell in self.cells
            for run in (*self.tuning(cell), *self.final(cell))
            if run.folder not in self.records
        }
        return list(wanted.values())

    def progress(self) -> tuple[int, int]:
        """Runs that have ended, and those of the whole study."""
        done, total = set(), set()
        rates = self.settings.learning_rates
        for cell in self.cells:
            pick = self.pick(cell)
            given_up = pick is None and all(run.folder in self.records for run in self.tuning(cell))
            # which rate will be picked is not known yet, but how many runs that means is
            rate = pick.learning_rate if pick is not None else rates[0]
            last = [] if given_up else [cell.run(rate, seed) for seed in self.settings.seeds]
            total |= {run.folder for run in (*self.tuning(cell), *last)}
            done |= {run.folder for run in (*self.tuning(cell), *self.final(cell)) if run.folder in self.records}
        return len(done), len(total)

    def runs(self) -> Sequence[Run]:
        """All runs that a study may come to, at any rate, with any of its seeds."""
        return self._runs
