"""`convlora doctor`: what this machine can train, and the command for it."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import join
from typing import TYPE_CHECKING

from convlora.cli.display import counting, print_table
from convlora.doctor.examine import SHARE, Findings, examine
from convlora.doctor.machine import Machine, this_machine
from convlora.doctor.prediction import BATCHES, METHODS, PREFERRED, Measurement, Setting
from convlora.doctor.settings import DoctorSettings
from convlora.settings import from_arguments

if TYPE_CHECKING:
    from convlora.doctor.images import ImageSet

_CACHE = 2e9  # bytes: the default of --image_cache_gb


def run(arguments: Sequence[str]) -> None:
    """Look at the machine, calibrate, and print what fits."""
    settings = from_arguments(
        DoctorSettings,
        arguments,
        prog="convlora doctor",
        description="Say what this machine has, try a few training steps, and say which settings fit. About a minute "
        "for sam-tiny; nothing is written.",
    )
    from convlora.doctor.images import look_at

    machine = this_machine()
    images = look_at(settings.images, settings.masks, settings.channels) if settings.images else None
    _print_machine(machine)
    reserved = min(_CACHE, images.decoded) if images else 0.0
    most = images.training if images else max(BATCHES)
    with counting("trying settings", unit="step") as progress:
        found = examine(settings, machine.available, reserved=reserved, most=most, progress=progress)
    _print_device(found)
    _print_settings(settings, found)
    if images is not None:
        _print_images(images, found.chosen)
    _print_command(settings, found)


def _print_machine(machine: Machine) -> None:
    print(f"processor: {machine.processor}, {machine.cores} cores")
    print(f"memory:    {_gb(machine.memory)}, {_gb(machine.available)} of it free")
    print("versions:  " + ", ".join(f"{name} {version}" for name, version in machine.versions.items()))
    if machine.load > machine.cores / 2:
        print(
            f"note: other programs keep {machine.load:.1f} of the {machine.cores} cores busy, so the times below are"
            " too long; run this again when they are done",
            flush=True,
        )


def _print_device(found: Findings) -> None:
    facts = found.facts
    total, free = facts.gpu_memory
    print(f"GPU:       {f'{facts.gpu}, {_gb(total)}, {_gb(free)} of it free' if facts.gpu else 'none'}")
    place = "GPU" if facts.device == "cuda" else f"processor, {facts.threads} threads"
    native = "is" if facts.native_bf16 else "is not"
    print(f"trains on: {place}, in {facts.precision} (bf16 {native} in its hardware)")


def _print_settings(settings: DoctorSettings, found: Findings) -> None:
    print(f"\nMemory and time of a training step of {settings.model}, without reading images:")
    rows = [["method", "image_size", *(f"batch_size {batch}" for batch in BATCHES)]]
    by_place = {(s.method, s.size, s.batch): s for s in found.settings}
    for method in METHODS:
        for size in found.sizes:
            cells = [_cell(by_place.get((method, size, batch)), found.budget) for batch in BATCHES]
            if any(cells):
                rows.append([method, str(size), *cells])
    print_table(rows)
    print("* measured; the others are predicted: a fixed part, and a part that grows with the batch")
    if any(s.peak > found.budget for s in found.settings):
        print(f"- does not fit into {_gb(found.budget)}, {100 * SHARE:.0f} % of the free memory")
    for method, need in found.too_large.items():
        print(f"{method} was not tried: it needs more than {_gb(need)}")
    if found.check is not None:
        print(_checked(*found.check))


def _cell(setting: Setting | None, budget: float) -> str:
    if setting is None:
        return ""
    if setting.peak > budget:
        return f"{_gb(setting.peak)} - "
    return f"{_gb(setting.peak)} {_seconds(setting.seconds)}{'*' if setting.measured else ' '}"


def _checked(said: Setting, seen: Measurement) -> str:
    memory, time = (100 * (a / b - 1) for a, b in ((said.peak, seen.peak), (said.seconds, seen.seconds)))
    return (
        f"checked with {said.method}, image_size {said.size}, batch_size {said.batch}: predicted {_gb(said.peak)} and "
        f"{_seconds(said.seconds)}, measured {_gb(seen.peak)} and {_seconds(seen.seconds)} "
        f"(memory {memory:+.0f} %, time {time:+.0f} %)"
    )


def _print_images(images: ImageSet, chosen: Setting | None) -> None:
    (low_height, low_width), (high_height, high_width) = images.smallest, images.largest
    sizes = f"{low_width}×{low_height} to {high_width}×{high_height}"
    print(f"\nimages: {images.count}, {images.training} of them to train on; sizes {sizes}")
    if chosen is not None:
        steps = -(-images.training // chosen.batch)
        print(f"an epoch: {steps} steps of the setting below, about {_duration(steps * chosen.seconds)}")


def _print_command(settings: DoctorSettings, found: Findings) -> None:
    chosen = found.chosen
    if chosen is None:
        print(
            f"\nNone of {', '.join(PREFERRED)} fits into {_gb(found.budget)}, {100 * SHARE:.0f} % of the free memory. "
            "Close other programs, give a smaller --model, or try --gradient_checkpointing, which was not measured."
        )
        return
    flags = {
        "images": settings.images or "IMAGES",
        "masks": settings.masks or (None if (settings.images or "").lower().endswith(".csv") else "MASKS"),
        "output": f"runs/{chosen.method}",
        "channels": None if settings.channels is None else str(settings.channels),
        "model": settings.model,
        "method": None if chosen.method == "conv-lora" else chosen.method,
        "image_size": str(chosen.size),
        "batch_size": str(chosen.batch),
        "precision": None if settings.precision == "auto" else settings.precision,
        "device": None if settings.device == "auto" else settings.device,
    }
    command = ["convlora", "train"]
    for name, value in flags.items():
        command += [f"--{name}", value] if value is not None else []
    print(f"\nThe largest setting that fits into {100 * SHARE:.0f} % of the free memory:\n  {join(command)}")
    if settings.images is None:
        print(
            "Put your folders for IMAGES and MASKS; given here as --images and --masks, they tell the time of an epoch."
        )
        print("Decoded images take up to 2 GB more of the processor's memory, as --image_cache_gb says.")


def _gb(size: float) -> str:
    return f"{size / 1e9:.{2 if size < 1e10 else 1}f} GB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
