"""A run as a job of submitit."""

from __future__ import annotations

import sys

from submitit.helpers import Checkpointable

from convlora.comparison.tasks import REFUSED, Task
from convlora.errors import OutputError


class Submitted(Checkpointable):
    """Makes a run; when its time is up or it is preempted, the scheduler queues it again, and it continues."""

    def __call__(self, task: str) -> int:
        """Make the run of a task in JSON; return its exit code, as `convlora.comparison.process.main`."""
        from convlora.comparison.process import perform

        try:
            return perform(Task.from_json(task))
        except OutputError as error:
            sys.stderr.write(f"{' '.join(str(error).split())}\n")
            return REFUSED
