"""Checkpoints that are complete or ignored, and hold no pickle.

A checkpoint is written into a hidden folder, sealed with a manifest of hashes and renamed. After a kill at any moment
there is the last complete one; what is half-written has another name or fails its manifest.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed

from convlora.adapter.saving import load_tensors, save_tensors
from convlora.errors import WeightsError
from convlora.files import sha256, whole_folder, write_json

OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "training_state.json"
SEAL_FILE = "checkpoint.json"
ADAPTER = "adapter"


@contextlib.contextmanager
def sealed_folder(path: Path) -> Iterator[Path]:
    """As `whole_folder`, with a file of hashes added, by which `is_complete` recognises the folder."""
    with whole_folder(path) as hidden:
        yield hidden
        files = sorted(file for file in hidden.rglob("*") if file.is_file())
        write_json(hidden / SEAL_FILE, {str(file.relative_to(hidden)): sha256(file) for file in files})


def is_complete(folder: Path) -> bool:
    """Whether every file that was sealed into a folder is there, unchanged."""
    try:
        seal = json.loads((folder / SEAL_FILE).read_text(encoding="utf-8"))
        return isinstance(seal, dict) and all(sha256(folder / name) == digest for name, digest in seal.items())
    except (OSError, ValueError):
        return False


def step_of(folder: Path) -> int:
    """The optimiser step that a checkpoint folder's name gives."""
    return int(folder.name.rpartition("-")[2])


def newest_complete(checkpoints: Path) -> Path | None:
    """The complete checkpoint with the most steps, or None."""
    return next((path for path in _by_step(checkpoints) if is_complete(path)), None)


def remove_old(checkpoints: Path, *, keep: int, best_step: int | None, step: int) -> None:
    """Delete all checkpoints but the newest `keep` and the best.

    What has more steps than `step`, the one just saved, is what an interrupted run left damaged: it goes too.
    """
    found = _by_step(checkpoints)
    newest = [path for path in found if step_of(path) <= step][:keep]
    for path in found:
        if path not in newest and step_of(path) != best_step:
            shutil.rmtree(path, ignore_errors=True)


def remove_unfinished(checkpoints: Path) -> None:
    """Delete the hidden folders that a kill left while a checkpoint was written."""
    for path in checkpoints.glob(".checkpoint-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def _by_step(checkpoints: Path) -> list[Path]:
    """All checkpoint folders, complete or not, most steps first."""
    found = [path for path in checkpoints.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    return sorted(found, key=step_of, reverse=True)


def save_training_state(
    folder: Path, *, optimizer: Any, scheduler: Any, scaler: Any, random_states: list[dict[str, Any]]
) -> None:
    """Write optimiser tensors as safetensors and everything else as JSON.

    `random_states` holds `random_state()` of every process, by rank.
    """
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{name}": value.detach().cpu().contiguous()
        for index, values in state["state"].items()
        for name, value in values.items()
    }
    save_tensors(tensors, folder / OPTIMIZER_FILE)
    plain = {
        "param_groups": state["param_groups"],
        "scheduler": scheduler.state_dict(),
        "scaler": scaler.state_dict() if scaler is not None else None,
        "random": random_states,
        "torch_threads": torch.get_num_threads(),
    }
    write_json(folder / STATE_FILE, plain)


def load_training_state(folder: Path, *, optimizer: Any, scheduler: Any, scaler: Any) -> None:
    """Restore what `save_training_state` wrote, but for the random states."""
    try:
        plain = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        tensors = load_tensors(folder / OPTIMIZER_FILE)
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": plain["param_groups"]})
        scheduler.load_state_dict(plain["scheduler"])
        if scaler is not None and plain["scaler"] is not None:
            scaler.load_state_dict(plain["scaler"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder} does not fit this run: {error!r}. Was its config.yaml changed?") from error


def difference(folder: Path) -> str | None:
    """What keeps a run that continues from a checkpoint from repeating it bit by bit; None if nothing is known."""
    try:
        plain = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        threads, processes = plain["torch_threads"], len(plain["random"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder / STATE_FILE} is not readable: {error!r}.") from error
    world = distributed.get_world_size() if distributed.is_initialized() else 1
    if (threads, processes) == (torch.get_num_threads(), world):
        return None
    return (
        f"the checkpoint is of {processes} process(es) with {threads} thread(s), this is {world} with "
        f"{torch.get_num_threads()}: the run goes on, but its numbers will differ in the last digits"
    )


def random_state() -> dict[str, Any]:
    """States of all random generators of this process, as JSON values."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, gauss],
        "torch": torch.get_rng_state().tolist(),
        "cuda": torch.cuda.get_rng_state().tolist() if torch.cuda.is_available() else None,  # of this process's GPU
    }


def restore_random_state(folder: Path, rank: int) -> None:
    """Set all random generators of this process to what a checkpoint recorded for its rank."""
    states = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))["random"]
    if rank >= len(states):
        return
    state = states[rank]
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if torch.cuda.is_available() and state["cuda"] is not None:
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8))
