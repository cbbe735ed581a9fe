"""Two sides timed in one run, alternately; and peak memory, each in a process of its own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def paired(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median seconds of both after a warm-up; which of the two goes first alternates."""
    times: tuple[list[float], list[float]] = ([], [])
    for warm_up in (first, second):
        warm_up()
    for i in range(rounds):
        for which in ((0, 1), (1, 0))[i % 2]:
            synchronize()
            start = time.perf_counter()
            (first, second)[which]()
            synchronize()
            times[which].append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_gib() -> float:
    """Peak memory of this process so far, in GiB: of the GPU's allocator if there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    # not getrusage: that peak is inherited from the process that started this one
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def in_own_process(module: str, *arguments: str) -> dict[str, Any]:
    """The JSON object that `python -m module arguments` prints last."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
