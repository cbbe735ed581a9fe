"""How long a user waits: for the help, and from `convlora train` to the first step.

python -m benchmarks.startup [--output benchmarks/results/startup.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.machine import describe
from convlora.cli.demo import SAMPLES

COMMAND = str(Path(sys.executable).with_name("convlora"))


def help_seconds(*command: str) -> float:
    start = time.perf_counter()
    subprocess.run([COMMAND, *command, "--help"], check=True, capture_output=True)
    return time.perf_counter() - start


def first_step_seconds() -> float:
    """From the command to the first line of log.jsonl, sam-tiny on the sample data."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        start = time.perf_counter()
        process = subprocess.Popen(
            [COMMAND, "train", "--images", str(SAMPLES), "--output", str(run), "--max_steps", "50"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        log = run / "log.jsonl"
        while not (log.is_file() and log.stat().st_size) and process.poll() is None:
            time.sleep(0.01)
        seconds = time.perf_counter() - start
        process.kill()
        process.wait()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/startup.json"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    help_seconds(), first_step_seconds()
    rounds = range(arguments.rounds)
    result = {
        "machine": describe(),
        "seconds, medians": {
            "convlora --help": statistics.median(help_seconds() for _ in rounds),
            "convlora train --help": statistics.median(help_seconds("train") for _ in rounds),
            "convlora train to the first step, sam-tiny": statistics.median(first_step_seconds() for _ in rounds),
        },
    }
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
