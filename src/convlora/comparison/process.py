"""The process of one run: it learns its task, claims the run, and only then pays for the import of torch."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from convlora.comparison.claims import claimed
from convlora.comparison.records import Record
from convlora.comparison.tasks import BUSY, DONE, INTERRUPTED, REFUSED, Task
from convlora.errors import OutputError


def perform(task: Task) -> int:
    """Make a run, and write its record: of its scores, or of its failure.

    Returns:
        DONE, or BUSY if another process is at it.

    Raises:
        OutputError: The disk is full or not writable. This is no fault of the run, so nothing is recorded.
        Interrupted: On SIGTERM, after a checkpoint was saved.
    """
    with claimed(task.folder) as mine:
        if not mine:
            return BUSY
        if Record.read(task.folder) is None:  # else another process was quicker
            from convlora.comparison.worker import make

            make(task)
        return DONE


def main() -> int:
    """Read a task from the first line of standard input, make the run, and return the exit code."""
    with contextlib.suppress(OSError):  # should memory run out, Linux ends this process and not the study
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    # without a buffer, whose lock a thread would hold when the interpreter ends
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stream:
        task = Task.from_json(stream.readline().decode("utf-8"))
        threading.Thread(target=_stop_at_end_of, args=(stream,), daemon=True).start()
        try:
            return perform(task)
        except OutputError as error:
            sys.stderr.write(f"{' '.join(str(error).split())}\n")
            return REFUSED
        except KeyboardInterrupt:
            return INTERRUPTED


def _stop_at_end_of(stream: Any) -> None:
    """When the study closes its end, or is gone, stop as at Ctrl-C: finish the step, save, leave."""
    stream.read(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
