"""Everything that can be set about a study; without torch, so that `convlora compare --help` is quick."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from convlora.data.settings import DataSettings
from convlora.errors import SettingsError
from convlora.training.settings import METHODS

POOLED = ("iou", "dice", "pixel_accuracy", "ber")  # scores that the pooled confusion matrices of images give
ENGINES = ("local", "submitit")
KEPT = ("all", "adapters", "nothing")
OWN = ("output", "learning_rate", "seed", "metric")  # of a run; the study sets them
# of the data, which a table's methods must share; they may differ in the part of the training images
DATA = tuple(
    field.name
    for field in dataclasses.fields(DataSettings)
    if field.name not in ("train_fraction", "train_images", "train_images_per_class", "subset_seed")
)

_NAME = re.compile(r"[\w+][\w.+-]*")


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """A study: every method on every data set, each at its best learning rate of one grid, with several seeds."""

    output: str
    """Folder of the runs, the tables and the page; a study that was stopped is continued."""
    datasets: dict[str, dict[str, Any]]
    """Name → settings of its data (images, masks, classes …), and any other settings of `convlora train` it needs."""
    models: list[str] = field(default_factory=lambda: ["sam-tiny"])
    """SAMs to start from, as --model of `convlora train`."""
    methods: list[str] | dict[str, dict[str, Any] | None] = field(
        default_factory=lambda: ["decoder", "lora", "conv-lora"]
    )
    """Methods; or name → changes of the training settings, such as learned: {method: conv-lora, adapter: {…}}."""
    subsets: dict[str, dict[str, Any]] = field(default_factory=dict)
    """A further axis, name → changes of the training settings, such as 5-shot: {train_images: 5}."""
    train: dict[str, Any] = field(default_factory=dict)
    """Settings of `convlora train` that all runs share."""
    learning_rates: list[float] = field(default_factory=lambda: [1e-4, 3e-4, 1e-3])
    """The grid, the same for every method."""
    tuning_seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds of the runs by whose best validation score the learning rate is picked."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Seeds of the runs in the table, at the picked rate; those made for the tuning are not made again."""
    metric: str = "iou"
    """Score that picks checkpoints and rates on validation, and that is compared on the test images: iou, dice,
    pixel_accuracy or, for two classes, ber."""
    reference: str | None = "lora"
    """Method that the others' differences are to; null for none."""
    keep: str = "adapters"
    """What stays of a scored run, beside its scores and masks: all, adapters, or nothing."""
    engine: str = "local"
    """Who starts the runs: local processes, or submitit (a SLURM cluster; install convlora[submitit])."""
    jobs: int = 1
    """Runs at the same time; on one machine its GPUs are used in turn."""
    threads: int | None = None
    """Processor threads of each local run; default all cores divided by jobs."""
    submitit: dict[str, Any] = field(default_factory=dict)
    """Parameters of submitit's executor, such as timeout_min and slurm_partition."""
    retry_failed: bool = False
    """Make runs that failed once more."""
    report_only: bool = False
    """Start no run; write table and page of those that are there."""

    @property
    def changes(self) -> dict[str, dict[str, Any]]:
        """Method names → their changes of the training settings; a name that is a method says so itself."""
        named = self.methods if isinstance(self.methods, dict) else dict.fromkeys(self.methods, None)
        return {
            name: ({"method": name} if name in METHODS else {}) | dict(changes or {}) for name, changes in named.items()
        }

    def validate(self) -> None:
        """Raise one `SettingsError` that lists everything wrong with the values themselves."""
        problems = [*self._name_problems()]  # alone: the others take the names for text
        problems = problems or [*self._axis_problems(), *self._choice_problems(), *self._owner_problems()]
        if problems:
            raise SettingsError("; ".join(problems) + ".")

    def _name_problems(self) -> Iterable[str]:
        """Names that cannot be folders."""
        for axis, names in (("datasets", self.datasets), ("methods", self.methods), ("subsets", self.subsets)):
            for name in names:
                if not isinstance(name, str):  # as YAML reads 2017 and yes
                    yield f"{axis}: the name {name!r} is no text; put it in quotation marks"
                elif not _NAME.fullmatch(name):
                    yield f"{axis}: the name {name!r} must be letters, digits, '_', '-', '+' or '.'"
        own = [changes["model"] for changes in self.changes.values() if "model" in changes]
        for model in (*self.models, *own):
            if Path(str(model)).name in ("", ".."):
                yield f"the model {model!r} ends without a name; give its folder by its full path"

    def _axis_problems(self) -> Iterable[str]:
        axes: dict[str, list[Any]] = {
            "datasets": list(self.datasets),
            "models": self.models,
            "methods": list(self.methods),
            "learning_rates": self.learning_rates,
            "tuning_seeds": self.tuning_seeds,
            "seeds": self.seeds,
        }
        for axis, values in axes.items():
            if not values:
                yield f"{axis} is empty; give at least one"
            if len(set(values)) < len(values):
                yield f"{axis} names something twice; give each once"
        if len({f"{rate:g}" for rate in self.learning_rates}) < len(set(self.learning_rates)):
            yield f"learning_rates={self.learning_rates} has two that are equal to six digits, as their folders' names"
        if any(not rate > 0 for rate in self.learning_rates):
            yield f"learning_rates={self.learning_rates} must be more than 0"

    def _choice_problems(self) -> Iterable[str]:
        if self.metric not in POOLED:
            yield (
                f"metric={self.metric!r} must be one of {', '.join(POOLED)}, scores of pooled confusion matrices, "
                "as which the test images are resampled"
            )
        for name, allowed in (("engine", ENGINES), ("keep", KEPT)):
            if getattr(self, name) not in allowed:
                yield f"{name}={getattr(self, name)!r} must be one of {', '.join(allowed)}"
        if self.reference is not None and self.reference not in self.methods:
            yield f"reference={self.reference!r} must be one of the methods ({', '.join(self.methods)}), or null"
        for name, changes in self.changes.items():
            if "method" not in changes:
                yield (f"methods: {name!r} is no method; give what it is, as in {name}: {{method: lora}}")
        for name in ("jobs", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name}={value} must be at least 1"

    def _owner_problems(self) -> Iterable[str]:
        """Settings of a run that two parts of the study would set."""
        yield from _foreign("train", self.train, (*OWN, "model", "method"))
        groups: tuple[tuple[str, Mapping[str, Any], tuple[str, ...]], ...] = (
            ("datasets", self.datasets, (*OWN, "model", "method")),
            ("methods", self.changes, OWN),
            ("subsets", self.subsets, (*OWN, "model", "method")),
        )
        for axis, entries, owned in groups:
            for name, changes in entries.items():
                yield from _foreign(f"{axis}.{name}", changes, owned)
        for name, changes in self.changes.items():
            for key in DATA:
                if key in changes:
                    yield f"methods.{name} sets {key!r}, which all methods of a table share; set it in 'datasets'"


def _foreign(place: str, changes: Mapping[str, Any], owned: Iterable[str]) -> Iterable[str]:
    instead = {"learning_rate": "learning_rates", "seed": "seeds", "model": "models", "method": "methods"}
    for key in owned:
        if key in changes:
            yield f"{place} sets {key!r}, which is the study's own; set {instead.get(key, key)!r} at the top"
