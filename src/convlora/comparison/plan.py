"""The runs of a study: which there are, where each lies, and with what settings."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convlora.comparison.settings import CompareSettings
from convlora.errors import SettingsError
from convlora.training.settings import TrainSettings, from_dict, validate

_RUNS = "runs"


@dataclass(frozen=True)
class Group:
    """What is compared within one table; `subset` is empty in a study without this axis."""

    dataset: str
    subset: str
    model: str
    joined: bool = False
    """Whether it is the folds of a data set together; see `convlora.comparison.folds`."""

    @property
    def title(self) -> str:
        """The names, for people."""
        return " · ".join(name for name in (self.dataset, self.subset, self.model) if name)


@dataclass(frozen=True)
class Cell:
    """One line of a table.

    Attributes:
        group: The table.
        method: The line's name.
        settings: Of its runs, but for learning rate, seed and output.
        folder: Of its runs.
    """

    group: Group
    method: str
    settings: TrainSettings
    folder: Path

    def run(self, learning_rate: float, seed: int) -> Run:
        """The run with this learning rate and seed."""
        return Run(self, learning_rate, seed)


@dataclass(frozen=True)
class Run:
    """One training; what it left lies in a run folder, and beside it."""

    cell: Cell
    learning_rate: float
    seed: int

    @functools.cached_property
    def folder(self) -> Path:
        """The run folder, as `convlora train` writes it."""
        return self.cell.folder / f"lr{self.learning_rate:g}-seed{self.seed}"

    @property
    def title(self) -> str:
        """The names, for people."""
        return f"{self.cell.group.title} · {self.cell.method} · rate {self.learning_rate:g} · seed {self.seed}"

    @property
    def settings(self) -> TrainSettings:
        """All settings of the run."""
        return dataclasses.replace(
            self.cell.settings, learning_rate=self.learning_rate, seed=self.seed, output=str(self.folder)
        ).anchored()


def plan(settings: CompareSettings) -> list[Cell]:
    """All cells of a study, table by table, with the settings of their runs checked.

    A run's settings are those of `train`, changed by its data set, its model, its subset and its method, in this order.

    Raises:
        SettingsError: A setting is unknown, wrong, or set where it must not be.
    """
    settings.validate()
    short = {model: Path(model).name for model in settings.models}
    if len(set(short.values())) < len(short):
        raise SettingsError(f"models={','.join(settings.models)!r}: two have the same last name; rename one's folder.")
    cells = []
    for dataset, data in settings.datasets.items():
        for subset, part in (settings.subsets or {"": {}}).items():
            for model in settings.models:
                for method, changes in settings.changes.items():
                    values = merged(settings.train, data, {"model": model}, part, changes)
                    group = Group(dataset, subset, short[model])
                    cells.append(_cell(settings, group, method, values))
    for rate in settings.learning_rates:  # the same for all cells, so one cell's runs tell
        for seed in dict.fromkeys((*settings.tuning_seeds, *settings.seeds)):
            validate(cells[0].run(rate, seed).settings)
    return cells


def _cell(settings: CompareSettings, group: Group, method: str, values: dict[str, Any]) -> Cell:
    # by its own model: a method that brings one, such as a network that is no SAM, is run once for all tables
    folder = Path(settings.output) / _RUNS / group.dataset / Path(str(values["model"])).name / method / group.subset
    values = {**values, "output": str(folder), "metric": settings.metric}
    return Cell(group, method, from_dict(values, source=f"{group.title} · {method}"), folder)


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings, later layers over earlier ones, group by group."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            before = result.get(key)
            both = isinstance(before, Mapping) and isinstance(value, Mapping)
            result[key] = merged(before, value) if both else value  # type: ignore[arg-type]
    return result
