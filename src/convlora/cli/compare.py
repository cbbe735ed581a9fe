"""`convlora compare`: many runs from one YAML file, and the table of what they show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from convlora.cli.display import print_table
from convlora.comparison.settings import CompareSettings
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
    from convlora.cli.study_display import StudyDisplay
    from convlora.comparison.compare import PAGE, TABLE, compare
    from convlora.comparison.table import cells, failures, head, heading

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
