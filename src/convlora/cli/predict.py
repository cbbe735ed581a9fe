"""`convlora predict`: masks for new images."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from convlora.cli.display import counting, quiet_libraries
from convlora.conversion.settings import TARGETS, PredictCommandSettings
from convlora.errors import ImageError, SettingsError
from convlora.settings import from_arguments


def run(arguments: Sequence[str]) -> None:
    """Predict a folder of images; under torchrun, this process's share of it."""
    settings = from_arguments(
        PredictCommandSettings,
        arguments,
        prog="convlora predict",
        description="Write a mask for each image: NAME.png, pixel value = class id, at the image's own size. "
        "`torchrun --nproc_per_node=N -m convlora.cli.main predict …` shares the images among N processes.",
        positional=("run", "images"),
    )
    rank, world, local_rank = _place()
    from convlora.conversion.convert import convert_folder, is_used, refuse_used
    from convlora.inference.folder import predict_folder
    from convlora.sam.precision import pick_device

    quiet_libraries()
    conversions = settings.conversions() if rank == 0 else []
    kept = [c for c in conversions if settings.skip_existing and is_used(Path(c.output))]
    for conversion in conversions:
        if conversion not in kept:
            refuse_used(Path(conversion.output))
    if world > 1 and settings.device in ("auto", "cuda") and pick_device(settings.device).type == "cuda":
        settings = dataclasses.replace(settings, device=f"cuda:{local_rank}")
    broken: ImageError | None = None
    silent = contextlib.nullcontext(lambda done, total: None)
    shown = counting("predicting") if rank == 0 else silent
    windows = counting("windows", "window", at_once=False) if rank == 0 else silent
    try:
        with shown as progress, windows as progress_windows:
            try:
                paths = predict_folder(settings, progress, progress_windows=progress_windows, rank=rank, world=world)
            except ImageError as error:
                broken = error
        _wait_for_the_others(world)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted. Continue with the same command and --skip_existing.") from None
    if broken is not None:
        raise broken
    if rank == 0:
        share = f", the share of the first of {world} processes" if world > 1 else ""
        print(f"{len(paths)} masks in {settings.output}{share}")
    for conversion in conversions:
        if conversion in kept:  # it may hold what somebody has corrected
            print(f"note: {conversion.output} is there already, and is left as it is")
            continue
        for note in convert_folder(conversion):
            print(f"note: {note}")
        print(f"{conversion.to}: {TARGETS[conversion.to]} in {conversion.output}")


def _place() -> tuple[int, int, int]:
    """Rank, world size and local rank that torchrun put into the environment; (0, 1, 0) without it."""
    defaults = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": os.environ.get("RANK", "0")}
    given = {name: os.environ.get(name, default) for name, default in defaults.items()}
    wrong = [f"{name}={value!r}" for name, value in given.items() if not value.isdecimal()]
    if not wrong and int(given["RANK"]) >= int(given["WORLD_SIZE"]):
        wrong = [f"RANK={given['RANK']} with WORLD_SIZE={given['WORLD_SIZE']}"]
    if wrong:
        raise SettingsError(
            f"the environment holds {', '.join(wrong)}; RANK must be a number from 0 to WORLD_SIZE - 1. torchrun sets "
            "both; without it, unset them."
        )
    return int(given["RANK"]), int(given["WORLD_SIZE"]), int(given["LOCAL_RANK"])


def _wait_for_the_others(world: int) -> None:
    """Return when all processes of torchrun are here: it ends them all as soon as one leaves with an error."""
    if world == 1 or "MASTER_ADDR" not in os.environ:  # the latter: started by hand, where each is on its own
        return
    from torch import distributed

    distributed.init_process_group("gloo", timeout=timedelta(days=30))
    distributed.barrier()
    distributed.destroy_process_group()
