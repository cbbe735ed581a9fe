"""What the commands show: progress bars, tables and notes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from convlora.cli.printing import printable
from convlora.training.events import Checking, Event, Progress, Started

if TYPE_CHECKING:
    from tqdm import tqdm

    from convlora.data.findings.checking import CheckedData
    from convlora.evaluation.results import RunResult


def quiet_libraries() -> None:
    """Turn off transformers' own progress bars, now that it is imported."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def new_bar(**options: Any) -> tqdm:
    """A progress bar; its library is imported with the first one, because `--help` shows none and must be quick."""
    from tqdm import tqdm

    return tqdm(**options)


class TrainingDisplay:
    """Shows the events of a run: a bar while images are checked, and one while it trains."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.stage = ""
        self.shown = ["iou", "dice"]

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if isinstance(event, Checking):
            self._advance("checking images", event.done, event.total, "image")
        elif isinstance(event, Started):
            self.close()
            self.shown = list(dict.fromkeys(("iou", "dice", event.metric)))
            if event.data is not None:
                print_data(event.data)
            share = 100 * event.trainable / event.total
            print(
                f"training {event.trainable:,} of {event.total:,} parameters ({share:.1f} %) in {event.precision}",
                flush=True,
            )
            if event.frozen_blocks is not None:
                print(f"the first {event.frozen_blocks} blocks of the encoder are computed once for each image")
            if event.first_step:
                print(f"continuing after step {event.first_step} of {event.total_steps}", flush=True)
            if event.note:
                print(f"note: {event.note}", flush=True)
            self._advance("training", event.first_step, event.total_steps, "step")
        else:
            self._progress(event)

    def _progress(self, event: Progress) -> None:
        self._advance("training", event.step, event.total, "step")
        if self.bar is None:
            return
        if event.loss is not None:
            self.bar.set_postfix_str(f"loss {event.loss:.4f}", refresh=False)
        if event.scores:
            shown = " ".join(f"{name} {event.scores[name]:.3f}" for name in self.shown if name in event.scores)
            self.bar.write(f"  step {event.step}: validation {shown}", file=sys.stdout)

    def _advance(self, stage: str, done: int, total: int, unit: str) -> None:
        if self.bar is None or self.stage != stage:
            self.close()
            self.stage = stage
            self.bar = new_bar(total=total, initial=done, desc=stage, unit=unit, file=sys.stderr)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Finish the bar that is shown."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


@contextmanager
def training_display() -> Iterator[TrainingDisplay]:
    """A display whose bar is finished even when the run fails."""
    display = TrainingDisplay()
    try:
        yield display
    finally:
        display.close()


@contextmanager
def counting(description: str, unit: str = "image", *, at_once: bool = True) -> Iterator[Callable[[int, int], None]]:
    """A bar for a function that reports (done, total), shown at once or when it first does."""
    with contextlib.ExitStack() as stack:

        def new() -> tqdm:
            return stack.enter_context(new_bar(desc=description, unit=unit, file=sys.stderr))

        bar = new() if at_once else None

        def report(done: int, total: int) -> None:
            nonlocal bar
            bar = new() if bar is None else bar
            bar.total = total
            bar.update(done - bar.n)

        yield report


def print_data(data: CheckedData, *, without: Container[str] = ()) -> None:
    """Say what was found, but for some of the notes."""
    parts = ", ".join(f"{len(samples)} {name}" for name, samples in data.splits.items() if samples)
    print(f"images: {parts}; sizes {_size(data.smallest)} to {_size(data.largest)}")
    counted = data.labelled_pixels
    for name, pixels, images in zip(data.labels.classes, data.class_pixels, data.images_per_class, strict=True):
        share = 100 * pixels / counted if counted else 0.0
        print(f"  {name}: {share:.2f} % of the pixels, in {images} images")
    for line in data.statistics.lines() if data.statistics is not None else ():
        print(f"  {line}")
    for note in data.notes:
        if note not in without:
            print(printable(f"note: {note}"))


def print_results(results: Sequence[RunResult]) -> None:
    """One row a run."""
    rows = [["method", "test IoU [95 %]", "test Dice [95 %]", "trained", "adapter"]]
    for result in results:
        cells = [result.name]
        for name in ("iou", "dice"):
            low, high = result.scores.intervals[name]
            cells.append(f"{result.scores.summary[name]:.3f} [{low:.3f}, {high:.3f}]")
        size = f"{result.adapter_bytes / 1e6:.2f} MB" if result.adapter_bytes else "-"
        rows.append([*cells, f"{result.trainable:,}", size])
    print_table(rows)


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need; the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(widths[0]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row)]
        print("  ".join(cells).rstrip())


def _size(size: tuple[int, int]) -> str:
    height, width = size
    return f"{width}×{height}"
