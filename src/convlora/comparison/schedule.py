"""Make the missing runs of a study, a few at the same time, until there are none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from convlora.comparison.claims import is_free
from convlora.comparison.engines import Engine, Job
from convlora.comparison.plan import Run
from convlora.comparison.records import Record
from convlora.comparison.study import Study
from convlora.comparison.tasks import BUSY, DONE, INTERRUPTED, REFUSED, Task
from convlora.errors import OutputError
from convlora.objectives.metrics import best
from convlora.training.folder import RunFolder
from convlora.training.settings import as_dict

_POLL = 0.5  # seconds between looks at our own runs
_LOOK = 5.0  # seconds between looks at the records, which of thousands of runs take a while
_BUSY = 10.0  # seconds until a run that another process makes is looked at again


@dataclass(frozen=True)
class Ended:
    """A run has ended, by whoever made it; so many of all have."""

    run: Run
    record: Record
    done: int
    total: int


@dataclass(frozen=True)
class Working:
    """What the runs under way do, one line each."""

    lines: list[str]
    done: int
    total: int


Report = Callable[[Ended | Working], None]


def make_runs(study: Study, engine: Engine, report: Report) -> None:
    """Make what is missing; a run that fails is recorded, and the others go on.

    Raises:
        OutputError: The disk is full or not writable.
        KeyboardInterrupt: On Ctrl-C, after the runs under way saved a checkpoint; a second Ctrl-C ends them at once.
    """
    _Schedule(study, engine, report).work()


class _Schedule:
    def __init__(self, study: Study, engine: Engine, report: Report) -> None:
        self.study = study
        self.engine = engine
        self.report = report
        self.jobs: dict[int, tuple[Run, Job]] = {}  # by slot
        self.not_before: dict[Path, float] = {}
        self.next_look = 0.0

    def work(self) -> None:
        try:
            missing = self._start()
            progress = self.study.progress()
            while missing or self.jobs:
                time.sleep(_POLL)
                if self._poll() or time.monotonic() >= self.next_look:
                    self._look_for_records()
                    progress = self.study.progress()
                    missing = self._start()
                self.report(Working([_line(run) for run, _ in self.jobs.values()], *progress))
        finally:
            self._stop()

    def _poll(self) -> bool:
        """Look at our own runs; whether one has ended."""
        ended = False
        for slot, (run, job) in list(self.jobs.items()):
            code = job.poll()
            if code is not None:
                del self.jobs[slot]
                self._ended(run, job, code)
                ended = True
        return ended

    def _start(self) -> bool:
        """Fill the free slots; whether runs are missing."""
        under_way = {run.folder for run, _ in self.jobs.values()}
        missing = [run for run in self.study.missing() if run.folder not in under_way]
        now = time.monotonic()
        ready = [run for run in missing if self.not_before.get(run.folder, now) <= now]
        free = [slot for slot in range(self.study.settings.jobs) if slot not in self.jobs]
        for run in ready:
            if not free:
                break
            if is_free(run.folder):
                slot = free.pop(0)
                self.jobs[slot] = run, self.engine.start(Task(run.settings, self.study.settings.keep), slot)
            else:
                self.not_before[run.folder] = now + _BUSY
        return bool(missing)

    def _ended(self, run: Run, job: Job, code: int) -> None:
        if code == BUSY:
            self.not_before[run.folder] = time.monotonic() + _BUSY
            return
        if code == REFUSED:
            raise OutputError(job.last_words())
        if code == INTERRUPTED:
            raise KeyboardInterrupt(f"{run.title} was stopped")
        if code != DONE and Record.read(run.folder) is None:
            Record(settings=as_dict(run.settings), error=_crash(code, job.last_words())).write(run.folder)

    def _look_for_records(self) -> None:
        """Report the records that have come, from our jobs or from other processes."""
        self.next_look = time.monotonic() + _LOOK
        known = set(self.study.records)
        self.study.refresh()
        for run in self.study.runs():
            if run.folder in self.study.records and run.folder not in known:
                self.report(Ended(run, self.study.records[run.folder], *self.study.progress()))
                known.add(run.folder)

    def _stop(self) -> None:
        jobs = [job for _, job in self.jobs.values()]
        for job in jobs:
            job.stop()
        try:
            while any(job.poll() is None for job in jobs):
                time.sleep(_POLL)
        finally:  # also at a second Ctrl-C
            for job in jobs:
                if job.poll() is None:
                    job.kill()


def _crash(code: int, last_words: str) -> str:
    if code == -9:
        return "the process was killed (signal 9), as Linux does when the memory is used up"
    what = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"the process ended with {what}: {last_words or 'it said nothing'}"


def _line(run: Run) -> str:
    """Where a run stands, from its log: so it can be asked of any machine's run."""
    entries = RunFolder(run.folder).read_log()
    if not entries:
        return f"{run.title}: starting"
    settings = run.settings
    metric = f"eval_{settings.metric}"
    scores = [entry[metric] for entry in entries if entry.get(metric) is not None]
    last = entries[-1]
    place = f"step {last['step']}"
    if settings.max_steps:
        place += f" of {settings.max_steps}"
    elif "epoch" in last:
        place += f", epoch {last['epoch']:.1f} of {settings.epochs}"
    found = f", best validation {settings.metric} {best(scores, settings.metric):.3f}" if scores else ""
    return f"{run.title}: {place}{found}"
