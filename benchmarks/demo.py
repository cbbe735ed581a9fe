"""Test scores of the demonstration's methods over several seeds.

    python -m benchmarks.demo [--output benchmarks/results/demo.json] [--runs runs/demo-seeds]

All methods get the settings of `convlora demo`: same data, steps, batch and learning rate. An interrupted benchmark
continues where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path

from benchmarks.machine import describe
from convlora.cli.demo import DemoSettings, training_settings
from convlora.cli.display import training_display
from convlora.evaluation.comparison import compare

METHODS = ["decoder", "lora", "conv-lora"]
SCORES = ("iou", "dice")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/demo.json"))
    parser.add_argument("--runs", type=Path, default=Path("runs/demo-seeds"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    by_seed: dict[str, dict[str, dict[str, float]]] = {}
    for seed in arguments.seeds:
        settings = training_settings(DemoSettings(output=str(arguments.runs / str(seed)), seed=seed))
        with training_display() as display:
            comparison = compare(settings, METHODS, title=f"HeLa nuclei, seed {seed}", report=display)
        by_seed[str(seed)] = {
            result.name: {name: result.scores.summary[name] for name in SCORES}
            for result in (comparison.baseline, *comparison.results)
        }
    result = {
        "machine": describe(),
        "settings": dataclasses.asdict(dataclasses.replace(settings, images="embedded HeLa crops", output="")),
        "by seed": by_seed,
        "mean and standard deviation over seeds": {
            method: {
                name: [f(scores[method][name] for scores in by_seed.values()) for f in (statistics.mean, spread)]
                for name in SCORES
            }
            for method in next(iter(by_seed.values()))
        },
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["mean and standard deviation over seeds"], indent=2))


def spread(values) -> float:
    values = list(values)
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
