"""`convlora demo`: Conv-LoRA against a decoder-only baseline on the embedded sample data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from convlora.cli.display import print_results, quiet_libraries, training_display
from convlora.settings import from_arguments
from convlora.training.settings import TrainSettings

SAMPLES = Path(__file__).parents[1] / "assets" / "hela" / "samples.csv"


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """The demonstration."""

    output: str = "runs/demo"
    """Folder for the runs and the report; an interrupted demo is continued."""
    methods: list[str] = field(default_factory=lambda: ["decoder", "conv-lora"])
    """Methods to compare, the one of interest last: decoder, lora, conv-lora, full."""
    max_steps: int = 120
    """Optimiser steps of each method."""
    seed: int = 0
    """Seed of weights, order, augmentation and gate noise."""


def training_settings(demo: DemoSettings) -> TrainSettings:
    """The settings that all methods of the demonstration share."""
    return TrainSettings(
        images=str(SAMPLES),
        output=demo.output,
        classes=["background", "nucleus"],
        max_steps=demo.max_steps,
        evaluate_every=max(1, demo.max_steps // 4),
        seed=demo.seed,
    )


def run(arguments: Sequence[str]) -> None:
    """Train both, print the table and where the report is."""
    demo = from_arguments(
        DemoSettings,
        arguments,
        prog="convlora demo",
        description="Fine-tune the embedded tiny SAM on HeLa nuclei with each method, and compare on held-out images.",
    )
    from convlora.evaluation.comparison import compare

    quiet_libraries()
    with training_display() as display:

        def announce(method: str) -> None:
            display.close()
            print(f"== {method}", flush=True)

        try:
            comparison = compare(
                training_settings(demo),
                demo.methods,
                title="Conv-LoRA demo: HeLa nuclei",
                announce=announce,
                report=display,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted. The same command continues.") from None
    print_results([comparison.baseline, *comparison.results])
    print(f"report: {comparison.report}")
