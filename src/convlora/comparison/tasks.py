"""What a process is told about the run that it shall make, and how it answers; without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from convlora.training.settings import TrainSettings, as_dict, from_dict

# exit codes of a run's process
DONE = 0
CRASHED = 1
REFUSED = 6  # as OutputError's: the last line of the log says why nothing can be written
BUSY = 75  # EX_TEMPFAIL: another process is at this run
INTERRUPTED = 130

MASKS = "masks"
"""Folder in the run folder: the classes predicted for each test image, N.png for the N-th, from 0."""


@dataclass(frozen=True)
class Task:
    """A run to make.

    Attributes:
        settings: Of the run; `output` is its folder.
        keep: As in `CompareSettings`.
    """

    settings: TrainSettings
    keep: str

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.settings.output)

    def to_json(self) -> str:
        """One line."""
        return json.dumps({"settings": as_dict(self.settings), "keep": self.keep})

    @classmethod
    def from_json(cls, line: str) -> Task:
        """What `to_json` made."""
        values = json.loads(line)
        return cls(from_dict(values["settings"], source="task"), values["keep"])
