"""Who starts the runs of a study: processes of this machine, or a cluster's scheduler."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any, Protocol

from convlora.comparison.records import beside
from convlora.comparison.settings import CompareSettings
from convlora.comparison.tasks import CRASHED, INTERRUPTED, Task
from convlora.errors import SettingsError
from convlora.files import output_errors


class Job(Protocol):
    """A run that was started."""

    def poll(self) -> int | None:
        """Exit code of `convlora.comparison.tasks`, another one after a crash, or None while it works."""

    def stop(self) -> None:
        """Ask it to save and end."""

    def kill(self) -> None:
        """End it at once."""

    def last_words(self) -> str:
        """Last line that it wrote."""


class Engine(Protocol):
    """Starts runs."""

    def start(self, task: Task, slot: int) -> Job:
        """Start a run; `slot` is the number, from 0, of its place among those that run at the same time."""


def engine_of(settings: CompareSettings) -> Engine:
    """The engine that the settings name.

    Raises:
        SettingsError: It is not installed.
    """
    if settings.engine == "submitit":
        return SubmititEngine(Path(settings.output) / "jobs", settings.submitit)
    cores = os.cpu_count() or 1
    return LocalEngine(settings.threads or max(1, cores // settings.jobs), _gpus())


class LocalEngine:
    """Processes of this machine.

    Args:
        threads: Of each process.
        gpus: Names for CUDA_VISIBLE_DEVICES, used in turn.
    """

    def __init__(self, threads: int, gpus: list[str]) -> None:
        self.threads = threads
        self.gpus = gpus

    def start(self, task: Task, slot: int) -> Job:
        """Start a process."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        return _Process(task, environment)


class _Process:
    def __init__(self, task: Task, environment: dict[str, str]) -> None:
        self.log = beside(task.folder, ".log")
        with output_errors(self.log):
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as stream:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "convlora.comparison.process"],
                    stdin=subprocess.PIPE,
                    stdout=stream,
                    stderr=stream,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for the study, which then stops its runs in order
                )
        self.input: IO[bytes] = self.process.stdin  # type: ignore[assignment]
        # the pipe stays open: the run stops when it closes, also when the study is killed
        with contextlib.suppress(BrokenPipeError):  # it crashed already, as `poll` will say
            self.input.write(f"{task.to_json()}\n".encode())
            self.input.flush()

    def poll(self) -> int | None:
        code = self.process.poll()
        if code is not None:
            self.stop()
        return code

    def stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.input.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def last_words(self) -> str:
        return last_line(self.log.read_text(encoding="utf-8", errors="replace"))


def _gpus() -> list[str]:
    """Names of the GPUs that may be used; found without torch, which takes seconds to import."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(i) for i, line in enumerate(listed.splitlines()) if line.startswith("GPU")]


class SubmititEngine:
    """Jobs of a SLURM cluster or, where there is none, processes that submitit starts.

    Args:
        folder: For submitit's own files; all machines must see it.
        parameters: Of `submitit.AutoExecutor.update_parameters`.

    Raises:
        SettingsError: submitit is not installed, or does not know a parameter.
    """

    def __init__(self, folder: Path, parameters: dict[str, Any]) -> None:
        try:
            import submitit
        except ImportError as error:
            raise SettingsError("engine='submitit' is not installed; install convlora[submitit].") from error
        self.executor = submitit.AutoExecutor(folder=folder)
        try:
            self.executor.update_parameters(name="convlora", **parameters)
        except (NameError, ValueError, AssertionError, TypeError) as error:
            raise SettingsError(f"submitit={parameters}: {error}") from error

    def start(self, task: Task, slot: int) -> Job:
        """Queue a job."""
        from convlora.comparison.submitted import Submitted

        return _QueuedJob(self.executor.submit(Submitted(), task.to_json()))


class _QueuedJob:
    def __init__(self, job: Any) -> None:
        self.job = job
        self.stopped = False

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        if self.stopped:
            return INTERRUPTED
        return CRASHED if self.job.exception() is not None else int(self.job.result())

    def stop(self) -> None:
        self.stopped = True
        self.job.cancel()

    def kill(self) -> None:
        self.stop()

    def last_words(self) -> str:
        return last_line(str(self.job.exception() or self.job.stderr() or ""))


def last_line(text: str) -> str:
    """The last line that is not empty; an empty text has none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
