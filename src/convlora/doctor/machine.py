"""What this machine has; without torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("convlora", "torch", "transformers", "peft")


@dataclass(frozen=True)
class Machine:
    """Processor, memory and versions."""

    processor: str
    cores: int
    """That this process may use."""
    load: float
    """Mean number of cores that programs kept busy in the last minute."""
    memory: int
    """Bytes installed."""
    available: int
    """Bytes that a new program can have; half of the memory where the system does not tell."""
    versions: dict[str, str]


def this_machine() -> Machine:
    """Look around."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    known = _first_value("/proc/meminfo", "MemAvailable")  # in kB; Linux only
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(
        processor=_first_value("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        cores=cores,
        load=os.getloadavg()[0],
        memory=memory,
        available=_within_container(int(known.split()[0]) * 1024 if known else memory // 2),
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
    )


def _within_container(available: int) -> int:
    """At most what a container (control group, version 2) leaves."""
    group = Path("/sys/fs/cgroup")
    try:
        left = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no such group, or the limit "max"
        return available
    return max(0, min(available, left))


def _first_value(path: str, name: str) -> str:
    """What follows the first `name:` in a file; empty if there is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
