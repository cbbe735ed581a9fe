"""`convlora compare`: many runs from one YAML file, and the table of what they show."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from convlora.cli.display import print_table
from convlora.comparison.schedule import Ended, Working
from convlora.comparison.settings import CompareSettings
from convlora.comparison.table import cells, duration, failures, head, heading
from convlora.errors import ConvloraError
from convlora.settings import from_arguments


def run(arguments: Sequence[str]) -> None:
    """Make the missing runs, print the tables and where the page is."""
    named = bool(arguments) and not arguments[0].startswith("-")
    settings = from_arguments(
        CompareSettings,
        ["--config", *arguments] if named else arguments,
        prog="convlora compare",
        description="Compare methods on data sets, each at its best learning rate and with several seeds. Give the "
        "study as a YAML file: convlora compare STUDY.yaml. The same command continues a study that was stopped.",
    )
    from convlora.comparison.compare import PAGE, TABLE, compare

    display = StudyDisplay()
    try:
        tables = compare(settings, display)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; what was done is saved. The same command continues.") from None
    finally:
        display.close()
    for table in tables:
        lines = table[1]
        print(f"\n{heading(table)}")
        print_table([head(settings), *(cells(line, settings) for line in lines)])
        for failure in failures(lines):
            print(f"  failed: {failure}")
        if failures(lines):
            print("  --retry_failed makes them again")
    print(f"\ntable: {Path(settings.output) / TABLE}")
    print(f"page: {Path(settings.output) / PAGE}")
    lines = [line for _, lines in tables for line in lines]
    if any(line.failed for line in lines) and not any(line.runs or line.missing for line in lines):
        raise ConvloraError("every method failed, so there is nothing to compare; the reasons are in the table.")


class StudyDisplay:
    """A bar over the runs of a study, with a line for each that has ended."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def __call__(self, event: Ended | Working) -> None:
        """Show one event."""
        if self.bar is None:
            self.bar = tqdm(
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
