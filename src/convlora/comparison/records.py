"""What is known about a run that ended: one JSON file beside its folder."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convlora import __version__
from convlora.errors import WeightsError
from convlora.files import output_errors, write_text
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


def changed_setting(folder: Path, settings: TrainSettings, record: Record | None) -> str:
    """Which setting a run would now be made with another value of, such as "epochs was 2 and is now 3"; or nothing.

    Args:
        folder: The run folder; a run that was begun says there what it is made with.
        settings: Of the run now.
        record: Of the run, if it has ended.
    """
    run = RunFolder(folder)
    made = run.settings() if run.config.is_file() else record.settings if record is not None else None
    now = as_dict(settings)
    if made is None or {**made, "output": ""} == {**now, "output": ""}:
        return ""
    before = as_dict(from_dict(made, source=run.config))  # with the defaults of what it was too early to know
    changed = [key for key in now if key != "output" and now[key] != before[key]]
    return f"{changed[0]} was {before[changed[0]]!r} and is now {now[changed[0]]!r}" if changed else ""


def left_nothing(folder: Path, record: Record | None) -> bool:
    """Whether a run failed without a checkpoint or weights, so that nothing is lost if it is made anew."""
    run = RunFolder(folder)
    return (
        record is not None and record.error is not None and not (run.adapter.exists() or any(run.checkpoints.glob("*")))
    )


def forget(folder: Path) -> None:
    """Remove the record of a failure, and the run folder if it holds nothing to continue from.

    Raises:
        OutputError: They cannot be removed.
    """
    with output_errors(folder):
        if left_nothing(folder, Record.read(folder)) and folder.exists():
            shutil.rmtree(folder)
        record_path(folder).unlink()
