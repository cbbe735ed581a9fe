"""What `convlora compare` shows while it works."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from convlora.cli.display import new_bar
from convlora.comparison.schedule import Ended, Working
from convlora.comparison.table import duration

if TYPE_CHECKING:
    from tqdm import tqdm


class StudyDisplay:
    """A bar over the runs of a study, with a line for each that has ended."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def __call__(self, event: Ended | Working) -> None:
        """Show one event."""
        if self.bar is None:
            self.bar = new_bar(
                total=event.total,
                initial=event.done,
                desc="runs",
                unit="run",
                dynamic_ncols=True,
                smoothing=0,  # the mean of all runs: they come method by method, each with its own time
                miniters=0,
                mininterval=1 if sys.stderr.isatty() else 60,  # a log file needs no more
            )
        if isinstance(event, Ended):
            self.bar.write(f"[{event.done}/{event.total}] {event.run.title}: {_outcome(event)}")
        else:
            self.bar.set_postfix_str(" | ".join(event.lines), refresh=False)
        self.bar.total = event.total
        self.bar.update(event.done - self.bar.n)

    def close(self) -> None:
        """Finish the bar."""
        if self.bar is not None:
            self.bar.close()


def _outcome(event: Ended) -> str:
    record = event.record
    if record.error is not None:
        return f"FAILED: {record.error}"
    metric = event.run.settings.metric
    validation = f"validation {metric} {record.validation:.4f}, " if record.validation is not None else ""
    score = record.scores[metric]
    test = "undefined" if score is None else f"{score:.4f}"
    return f"{validation}test {metric} {test}, {duration(record.seconds)}"
