"""Time and memory of whole models: training steps and forward passes, against the shape of the released stack.

    python -m benchmarks.speed [--only TEXT] [--output benchmarks/results/speed-cpu.json]

Every figure is a ratio inside one run: medians, the two sides alternating; peak memory is that of fresh processes.
"Released shape" is eager attention with its bias tensor, float32, and experts that up-sample, convolve and sample down,
grouped by expert through `tolist`. Weights are random; they do not matter for time. Rows for a GPU are written when
there is one.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe
from benchmarks.models import build, forward, step
from benchmarks.timing import in_own_process, paired, peak_gib

CUDA = torch.cuda.is_available()


def ratio(slow: Callable[[], object], fast: Callable[[], object], rounds: int) -> dict[str, Any]:
    first, second = paired(slow, fast, rounds)
    return {"ratio": first / second, "seconds": [first, second]}


def conv_lora_against_lora(arch: str, size: int, batch: int, rounds: int) -> dict[str, Any]:
    """Step of Conv-LoRA / step of LoRA, both with our encoder."""
    sides = [step(build(arch, size, method), size, batch) for method in ("conv-lora", "lora")]
    return ratio(*sides, rounds)


def released_against_ours(arch: str, size: int, batch: int, rounds: int) -> dict[str, Any]:
    """Step of the released shape / ours, and their peak memory."""
    kinds = ("released", "conv-lora")
    peaks = memory(kinds, arch, size, batch)
    if None in peaks["GiB"]:  # then there is no ratio, but the side that fits is timed
        fits = [kind for kind, gib in zip(kinds, peaks["GiB"], strict=True) if gib is not None]
        alone = [step(build(arch, size, kind), size, batch) for kind in fits]
        return peaks | {kind: paired(run, run, rounds)[0] for kind, run in zip(fits, alone, strict=True)}
    result = ratio(*[step(build(arch, size, kind), size, batch) for kind in kinds], rounds)
    return result | peaks | {"images per second": [batch / seconds for seconds in result["seconds"]]}


def all_blocks_against_last_four(arch: str, size: int, batch: int, rounds: int) -> dict[str, Any]:
    """Step with all blocks adapted / with the last four and the others' answers kept, and their peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        whole = step(build(arch, size, "conv-lora"), size, batch)
        few = step(build(arch, size, "last-four"), size, batch, cache=Path(folder))
        result = ratio(whole, few, rounds)
        del whole, few
    return result | memory(("conv-lora", "last-four"), arch, size, batch)


def forward_against_sdpa(arch: str, size: int, batch: int, rounds: int, precision: str) -> dict[str, Any]:
    """Forward pass with transformers' sdpa in float32 / ours, and their peak memory."""
    kinds = ("sdpa", f"ours-{precision}")
    sides = [forward(build(arch, size, kind), size, batch) for kind in kinds]
    result = ratio(*sides, rounds)
    del sides
    return result | memory(kinds, arch, size, batch)


def memory(kinds: tuple[str, str], arch: str, size: int, batch: int) -> dict[str, Any]:
    """Peak of each side in GiB, None where it does not fit, and their ratio."""
    gib = [in_own_process("benchmarks.speed", "--peak", kind, arch, str(size), str(batch))["gib"] for kind in kinds]
    known = gib if None not in gib else None
    return {"GiB": gib, "memory ratio (second / first)": known and known[1] / known[0]}


def peak(kind: str, arch: str, size: int, batch: int) -> float | None:
    """Peak memory of two steps, or forward passes, of one kind in this process; None if it does not fit."""
    try:
        return _peak(kind, arch, size, batch)
    except torch.cuda.OutOfMemoryError:
        return None


def _peak(kind: str, arch: str, size: int, batch: int) -> float:
    model = build(arch, size, kind)
    with tempfile.TemporaryDirectory() as folder:
        if kind == "sdpa" or kind.startswith("ours-"):
            run = forward(model, size, batch)
        else:
            run = step(model, size, batch, cache=Path(folder) if kind == "last-four" else None)
        for _ in range(2):
            run()
    return peak_gib()


def growth(steps: int) -> dict[str, Any]:
    """Resident memory gained per 1,000 training steps, after the first 500."""
    run = step(build("sam-small", 64, "conv-lora"), 64, 1)
    marks = []
    for i in range(steps + 501):
        run()
        if i >= 500 and (i - 500) % 1000 == 0:
            marks.append(_resident_mib())
    return {"MiB per 1000 steps": (marks[-1] - marks[0]) / (len(marks) - 1), "MiB": marks}


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def figures(rounds: int) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every figure by its name; those of a GPU only where there is one."""
    part = functools.partial
    rows = {
        "Conv-LoRA / LoRA, step, sam-tiny 512, batch 4": part(conv_lora_against_lora, "sam-tiny", 512, 4, rounds),
        "Conv-LoRA / LoRA, step, ViT-B 512": part(conv_lora_against_lora, "vit-b", 512, 1, rounds),
        "released / ours, step, sam-tiny 512, batch 4": part(released_against_ours, "sam-tiny", 512, 4, rounds),
        "released / ours, step, ViT-B 512": part(released_against_ours, "vit-b", 512, 1, rounds),
        "released / ours, step, ViT-B 1024": part(released_against_ours, "vit-b", 1024, 1, max(2, rounds // 2)),
        "all blocks / last 4 + cache, step, ViT-B 1024": part(all_blocks_against_last_four, "vit-b", 1024, 1, rounds),
        "sdpa / ours, forward, ViT-B 1024, float32": part(forward_against_sdpa, "vit-b", 1024, 1, rounds, "fp32"),
        "sdpa / ours, forward, ViT-B 1024, auto": part(forward_against_sdpa, "vit-b", 1024, 1, rounds, "auto"),
        "memory growth": part(growth, 3000),
    }
    if CUDA:
        rows["Conv-LoRA / LoRA, step, ViT-B 1024"] = part(conv_lora_against_lora, "vit-b", 1024, 1, rounds)
        for batch in (1, 2, 4, 8):
            name = f"released / ours, step, ViT-H 1024, batch {batch}"
            rows[name] = part(released_against_ours, "vit-h", 1024, batch, rounds)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=Path(f"benchmarks/results/speed-{'gpu' if CUDA else 'cpu'}.json")
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only figures whose name holds this text; others in the file stay")
    parser.add_argument("--peak", nargs=4, metavar=("KIND", "ARCH", "SIZE", "BATCH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        kind, arch, size, batch = arguments.peak
        print(json.dumps({"gib": peak(kind, arch, int(size), int(batch))}))
        return
    kept = json.loads(arguments.output.read_text())["figures"] if arguments.output.is_file() else {}
    result = {"machine": describe(), "rounds": arguments.rounds, "figures": kept}
    for name, measure in figures(arguments.rounds).items():
        if arguments.only not in name:
            continue
        kept[name] = measure()
        print(f"{name}: {json.dumps(kept[name])}", flush=True)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
