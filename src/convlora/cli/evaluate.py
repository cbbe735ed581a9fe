"""`convlora evaluate`: scores of a run on labelled images."""

from __future__ import annotations

from collections.abc import Sequence

from convlora.cli.display import counting, print_results, print_table, quiet_libraries
from convlora.evaluation.settings import EvaluateSettings
from convlora.settings import from_arguments


def run(arguments: Sequence[str]) -> None:
    """Score a run and print every score with its definition."""
    settings = from_arguments(
        EvaluateSettings,
        arguments,
        prog="convlora evaluate",
        description="Score a run on its own test images, or on a folder of images and a folder of masks.",
        positional=("run",),
    )
    from convlora.evaluation.evaluate import evaluate

    quiet_libraries()
    with counting("scoring") as progress:
        evaluation = evaluate(settings, progress)
    for note in evaluation.notes:
        print(f"note: {note}")
    print_results([evaluation.result])
    scores = evaluation.result.as_json()
    rows = [[name, _number(value), scores["definitions"][name]] for name, value in scores["scores"].items()]
    for name, value, definition in rows:
        print(f"{name:<16}{value:>8}  {definition}")
    print_table([["class", "IoU", "Dice"], *_classes(scores["classes"])])
    if evaluation.folder is not None:
        print(f"written: {evaluation.folder / 'metrics.json'}, {evaluation.folder / 'report.html'}")


def _classes(classes: dict[str, dict[str, float | None]]) -> list[list[str]]:
    return [[name, _number(scores["iou"]), _number(scores["dice"])] for name, scores in classes.items()]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
