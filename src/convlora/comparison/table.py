"""A study's tables as text: the same cells for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Sequence

from convlora.comparison.settings import CompareSettings
from convlora.comparison.statistics import RESAMPLES, Estimate
from convlora.comparison.summary import Line, Table
from convlora.objectives.metrics import DEFINITIONS, LOWER_IS_BETTER


def head(settings: CompareSettings) -> list[str]:
    """Names of the columns."""
    difference = [f"difference to {settings.reference} [95 %]", "p (Holm)"] if settings.reference else []
    return [
        "method",
        "learning rate",
        f"test {settings.metric} (mean ± sd)",
        "95 % interval",
        *difference,
        "trained parameters",
        "adapter",
        "time of a run",
        "peak memory",
        "runs",
    ]


def cells(line: Line, settings: CompareSettings) -> list[str]:
    """One line, a text for each column; "–" where there is nothing."""
    score = line.score
    sd = f" ± {score.sd:.4f}" if score and score.sd is not None else ""
    difference = [_difference(line.difference, settings), _p_value(line.adjusted)] if settings.reference else []
    trainable, size = line.mean("trainable"), line.mean("adapter_bytes")
    seconds, memory = line.mean("seconds"), line.mean("peak_memory")
    return [
        line.cell.method,
        _rate(line, settings),
        f"{score.mean:.4f}{sd}" if score else "–",
        f"[{score.low:.4f}, {score.high:.4f}]" if score and score.low is not None else "–",
        *difference,
        f"{trainable:,.0f}" if trainable is not None else "–",
        f"{size / 1e6:.2f} MB" if size is not None else "–",
        duration(seconds) if seconds is not None else "–",
        f"{memory / 1e9:.2f} GB" if memory else "–",
        _runs(line, settings),
    ]


def heading(table: Table) -> str:
    """The names of a table's group, and how many test images its numbers are of, if there is a score yet."""
    group, lines = table
    images = next((f", {line.score.images} test images" for line in lines if line.score is not None), "")
    return f"{group.title}{images}"


def failures(lines: Sequence[Line]) -> list[str]:
    """A sentence on each failed run."""
    return [f"{line.cell.method}, {run.folder.name}: {record.error}" for line in lines for run, record in line.failed]


def notes(settings: CompareSettings) -> list[str]:
    """What a reader of the tables must know."""
    several = len(settings.learning_rates) > 1
    grid = ", ".join(f"{rate:g}" for rate in settings.learning_rates)
    lower = settings.metric in LOWER_IS_BETTER
    found = [f"{settings.metric}: {DEFINITIONS[settings.metric]}.{' Lower is better.' if lower else ''}"]
    found.append(
        f"Learning rate: the best of {grid} on the validation images, seeds {_listed(settings.tuning_seeds)}; "
        "“edge of grid”: the best rate may lie outside."
        if several
        else f"Learning rate: {grid} for all methods, not tuned."
    )
    found.append(
        f"Interval: 95 %, test images (so many are in the table's title) resampled {RESAMPLES:,} times and widened for "
        "few of them, the spread over the seeds by Student's t; with few seeds it is wide, as it must be; with one, it "
        "and p know the images only. There is none of one image, nor where failed runs leave one seed of several. "
        f"Seeds of the table: {_listed(settings.seeds)}."
    )
    if settings.reference:
        found.append(
            f"Difference to {settings.reference}: the method's score less that of {settings.reference}, so "
            f"{'below' if lower else 'above'} 0 the method is better; same seeds, same images; p is two-sided, by the "
            "same bootstrap, adjusted by Holm's method for the number of p in the table."
        )
    found.append("Time: training with its validations, without loading and scoring. Memory: of the process.")
    return found


def markdown(settings: CompareSettings, tables: Sequence[Table]) -> str:
    """All tables, with their failed runs and notes."""
    parts = [f"**{unfinished(tables)}**"] if unfinished(tables) else []
    for table in tables:
        lines = table[1]
        rows = [head(settings), *(cells(line, settings) for line in lines)]
        parts.append(f"## {heading(table)}\n\n{_markdown_table(rows)}")
        failed = failures(lines)
        if failed:
            parts.append(
                "Failed runs (--retry_failed makes them again):\n\n" + "\n".join(f"- {text}" for text in failed)
            )
    parts.append("\n".join(f"- {note}" for note in notes(settings)))
    return "\n\n".join(parts) + "\n"


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def unfinished(tables: Sequence[Table]) -> str:
    """A sentence on what is missing; empty if nothing is."""
    missing = sum(line.missing for _, lines in tables for line in lines)
    return f"Not finished: at least {missing} runs are still to be made." if missing else ""


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    ruler = "|---|" + "---:|" * (len(rows[0]) - 1)
    return "\n".join([lines[0], ruler, *lines[1:]])


def _rate(line: Line, settings: CompareSettings) -> str:
    if line.pick is None:
        return "–"
    return f"{line.pick.learning_rate:g}" + (" (edge of grid)" if line.pick.at_edge else "")


def _difference(difference: Estimate | None, settings: CompareSettings) -> str:
    if difference is None:
        return "–"
    interval = "" if difference.low is None else f" [{difference.low:+.4f}, {difference.high:+.4f}]"
    pairs = f", {difference.seeds} of {len(settings.seeds)} pairs" if difference.seeds < len(settings.seeds) else ""
    return f"{difference.mean:+.4f}{interval}{pairs}"


def _p_value(p: float | None) -> str:
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _runs(line: Line, settings: CompareSettings) -> str:
    text = f"{len(line.runs)} of {len(settings.seeds)}"
    return text + (f", {len(line.failed)} failed" if line.failed else "")


def _listed(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values)
