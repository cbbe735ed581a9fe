"""What is known about a run that ended: one JSON file beside its folder."""

from __future__ import annotations

import dataclasses
import datetime
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convlora import __version__
from convlora.errors import OutputError, WeightsError
from convlora.files import write_text
from convlora.training.folder import RunFolder
from convlora.training.settings import TrainSettings, as_dict, from_dict


@dataclass(frozen=True, kw_only=True)
class Record:
    """The result of a run, or why there is none.

    Attributes:
        settings: Of the run, plain.
        error: In one line, if the run failed; then all of the following is empty.
        validation: Best validation score; None without validation images.
        scores: Of the test images, by the names of `convlora.objectives.metrics.DEFINITIONS`; None if undefined.
        images: Names of the test images.
        classes: Names of the classes by id.
        confusions: (N, K, K) confusion matrices of the test images, rows the truth.
        seconds: Of training, validations included, without loading and scoring.
        peak_memory: Bytes that the process (on a GPU: its tensors there) used at most while it trained.
        trainable: Number of parameters that were trained.
        adapter_bytes: Size of the weights file.
        device: What it was trained on.
        version: Of convlora.
        ended: When, in UTC.
    """

    settings: dict[str, Any]
    error: str | None = None
    validation: float | None = None
    scores: dict[str, float | None] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    confusions: list[list[list[int]]] = field(default_factory=list, repr=False)
    seconds: float = 0.0
    peak_memory: float = 0.0
    trainable: int = 0
    adapter_bytes: int = 0
    device: str = ""
    version: str = __version__
    ended: str = field(default_factory=lambda: datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds"))

    @property
    def matrices(self) -> np.ndarray:
        """The confusion matrices, (N, K, K) int64."""
        return np.asarray(self.confusions, dtype=np.int64)

    def write(self, folder: Path) -> None:
        """Write the file beside a run folder, whole or not at all."""
        # one line: the matrices would fill thousands
        write_text(record_path(folder), json.dumps(dataclasses.asdict(self), allow_nan=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """What `write` wrote; None if the run has not ended.

        Raises:
            WeightsError: The file is damaged.
        """
        path = record_path(folder)
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise WeightsError(f"{path} is not readable ({error}). Remove it to score the run again.") from error


def record_path(folder: Path) -> Path:
    """The file of a run folder's result, beside it."""
    return beside(folder, ".json")


def beside(folder: Path, ending: str) -> Path:
    """A file that belongs to a run folder but must not lie in it: `train` wants an empty one."""
    return folder.with_name(folder.name + ending)  # with_suffix would take lr0.001 apart


def refuse_changed(folder: Path, settings: TrainSettings) -> None:
    """Raise an `OutputError` if a run was made with other settings than it would be made with now.

    A failed run that never got as far as its folder may be made anew with any settings: its record is removed.
    """
    run = RunFolder(folder)
    record = Record.read(folder)
    made = run.settings() if run.config.is_file() else record.settings if record is not None else None
    now = as_dict(settings)
    if made is None or {**made, "output": ""} == {**now, "output": ""}:
        return
    before = as_dict(from_dict(made, source=run.config))  # with the defaults of what it was too early to know
    changed = [key for key in now if key != "output" and now[key] != before[key]]
    if not changed:
        return
    if record is not None and record.error is not None and not run.config.is_file():
        record_path(folder).unlink()
        return
    key = changed[0]
    raise OutputError(
        f"{folder} was made with other settings: {key} was {before[key]!r} and is now {now[key]!r}. Give the old "
        f"setting, choose another output folder, or remove {folder} and {record_path(folder).name} beside it."
    )
