"""`convlora analyze`: what tuning did inside the model, in pictures and numbers."""

from __future__ import annotations

from collections.abc import Sequence

from convlora.analysis.settings import AnalyzeSettings
from convlora.cli.display import counting, quiet_libraries
from convlora.settings import from_arguments


def run(arguments: Sequence[str]) -> None:
    """Analyse a run and say where the page is."""
    settings = from_arguments(
        AnalyzeSettings,
        arguments,
        prog="convlora analyze",
        description="Show what tuning did inside a run's model: which expert each window of an image got, how much "
        "the experts were used over training, how far attention reaches, and what linear probes read off the encoder.",
        positional=("run",),
    )
    from convlora.analysis.analyze import analyze

    quiet_libraries()
    with counting("analysing") as progress:
        analysis = analyze(settings, progress)
    for note in analysis.notes:
        print(f"note: {note}")
    print(f"written: {analysis.folder / 'analysis.html'}, {analysis.folder / 'analysis.json'}")
