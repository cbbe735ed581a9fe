"""The run folder: what lies where, and who may write to it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from convlora.errors import OutputError, SettingsError, WeightsError
from convlora.files import append_json_line, output_errors, read_json_lines, write_json, write_text
from convlora.training.split import Split


class RunFolder:
    """Paths of a run: config.yaml · split.json · adapter/ · checkpoints/ · log.jsonl · routing.jsonl (with experts
    only) · metrics.json · report.html.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.split = self.path / "split.json"
        self.adapter = self.path / "adapter"
        self.checkpoints = self.path / "checkpoints"
        self.log = self.path / "log.jsonl"
        self.routing = self.path / "routing.jsonl"
        self.metrics = self.path / "metrics.json"
        self.report = self.path / "report.html"
        self.prefix_cache = self.path / "prefix-cache"
        self.lock = self.path / ".lock"

    def refuse_if_used(self) -> None:
        """Raise an `OutputError` if the folder holds files already."""
        with output_errors(self.path):
            names = sorted(entry.name for entry in self.path.iterdir()) if self.path.exists() else []
        if self.config.name in names:
            raise OutputError(
                f"{self.path} holds a run already. Continue it with `convlora resume {quote(str(self.path))}`, or "
                "choose another output folder."
            )
        # the split without settings is what a kill at the very start leaves
        foreign = [name for name in names if not name.startswith(".") and name != self.split.name]
        if foreign:
            raise OutputError(f"{self.path} is not empty (it holds {foreign[0]}). Choose a new output folder.")

    def create(self, settings: dict[str, Any], split: Split) -> None:
        """Make the folder, with the settings and the split of a new run; the settings come last, whole.

        Raises:
            OutputError: It holds files already, or cannot be written.
        """
        self.refuse_if_used()
        with output_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self.write_split(split)
        write_text(self.config, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunFolder:
        """An existing run folder.

        Raises:
            WeightsError: It is not one.
        """
        folder = cls(path)
        if not folder.config.is_file():
            raise WeightsError(
                f"{path} is not a run folder: it has no config.yaml. Give a folder that `convlora train` wrote."
            )
        return folder

    def settings(self) -> dict[str, Any]:
        """The plain settings in config.yaml."""
        try:
            values = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise WeightsError(f"{self.config} is not readable YAML: {error}") from error
        if not isinstance(values, dict):
            raise WeightsError(f"{self.config} holds no settings.")
        return values

    def write_split(self, split: Split) -> None:
        """Record the samples; a resumed run and the evaluation read them from there."""
        write_json(self.split, split.as_json())

    def read_split(self) -> Split:
        """What `write_split` wrote.

        Raises:
            WeightsError: It is missing or damaged.
            DataError: Samples that are parts of files are not found any more.
        """
        try:
            return Split.from_json(json.loads(self.split.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError, SettingsError) as error:
            raise WeightsError(f"{self.split} is missing or damaged ({error!r}).") from error

    @contextlib.contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[None]:
        """Keep a second process out of the folder; the lock ends with this process, whatever its children do.

        Args:
            shared: Take no lock: this is another process of the run that holds it.
        """
        if shared:
            yield
            return
        with output_errors(self.lock), self.lock.open("w") as stream:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # flock would live on in workers that were forked
            except (BlockingIOError, PermissionError) as error:
                raise OutputError(
                    f"{self.path} is in use by another run. Wait for it, or choose another output folder."
                ) from error
            yield

    def append_log(self, entry: dict[str, Any]) -> None:
        """Add one line to log.jsonl; numbers that are not finite become null."""
        append_json_line(self.log, entry)

    def read_log(self) -> list[dict[str, Any]]:
        """All whole lines of log.jsonl; a line torn by a kill is left out."""
        return read_json_lines(self.log)

    def rewind_log(self, step: int) -> None:
        """Forget what log.jsonl and routing.jsonl say of later steps, before these are run again."""
        for path in (self.log, self.routing):
            if path.exists():
                kept = [entry for entry in read_json_lines(path) if entry.get("step", 0) <= step]
                write_text(path, "".join(json.dumps(entry) + "\n" for entry in kept))
