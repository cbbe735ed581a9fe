"""Adapter folders that are verified before they are used.

PEFT's own format (adapter_config.json + adapter_model.safetensors) plus a manifest: the hash of both files, and a probe
of the base model. safetensors executes nothing but verifies nothing either; PEFT loads a tampered adapter
with a missing key, an extra key or NaN weights without an error. Here each of them is refused by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from convlora.adapter.parameters import base_parameters
from convlora.adapter.reading import read_config, read_json
from convlora.errors import WeightsError
from convlora.files import replacing, sha256, write_json

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MANIFEST_FILE = "manifest.json"
FORMAT = 1

_SIZES = (
    "r",
    "num_experts",
    "routing",
    "num_prompts",
    "mlp_ratio",
)  # of a configuration; they decide what is allocated
_PROBE_SIZE = 256
_PROBE_TOLERANCE = 2**-7  # a base kept in bf16 differs from float32 by 2^-8 of each value


def save_adapter(model: PeftModel, folder: Path, *, metadata: Mapping[str, Any]) -> None:
    """Save the active adapter, its configuration, and a manifest that recognises both and the base model.

    Args:
        model: What `peft.get_peft_model` returned.
        folder: An existing folder; files of the same names are replaced.
        metadata: JSON values kept in the manifest under "metadata".

    Raises:
        WeightsError: The configuration names layers by a pattern, which `load_adapter` would refuse.
    """
    name = model.active_adapter
    config = model.peft_config[name]
    was_inference = config.inference_mode
    config.inference_mode = True  # as PEFT saves it: a loaded adapter is not trainable unless asked
    if isinstance(targets := getattr(config, "target_modules", None), set):
        config.target_modules = sorted(targets)  # a set is saved in an order that differs from process to process
    try:
        config.save_pretrained(str(folder))
    finally:
        config.inference_mode = was_inference
    read_config(folder / CONFIG_FILE)  # refuses now what could not be loaded later
    state = {key: value.detach().cpu().contiguous() for key, value in _adapter_tensors(model).items()}
    save_tensors(state, folder / WEIGHTS_FILE)
    manifest = {
        "format": FORMAT,
        "files": {file: sha256(folder / file) for file in (CONFIG_FILE, WEIGHTS_FILE)},
        "base_probe": base_probe(model),
        "metadata": dict(metadata),
    }
    write_json(folder / MANIFEST_FILE, sealed(manifest))


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the hash of all its other entries under "sha256"."""
    entries = {key: value for key, value in manifest.items() if key != "sha256"}
    return {**entries, "sha256": hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an adapter folder, after the hashes that it lists were verified.

    Raises:
        WeightsError: There is no manifest, or a file is missing or was changed.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise WeightsError(
            f"{folder} holds no {MANIFEST_FILE}, so it is not a complete adapter saved by convlora. Give a run "
            "folder, or its adapter/ folder."
        )
    manifest = read_json(path)
    files, probe = manifest.get("files"), manifest.get("base_probe")
    if manifest.get("format") != FORMAT or not isinstance(files, dict) or not isinstance(probe, list):
        raise WeightsError(
            f"{path} is damaged or of another version: expected format {FORMAT} with files and base_probe."
        )
    if manifest != sealed(manifest):
        raise WeightsError(f"{path} was changed after it was saved (its SHA-256 differs). Copy it again.")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise WeightsError(f"{folder / name} is missing. Copy the whole adapter folder again.")
        if sha256(folder / name) != files.get(name):
            raise WeightsError(f"{folder / name} was changed after it was saved (its SHA-256 differs). Copy it again.")
    return manifest


def load_adapter(base: nn.Module, folder: Path, *, trainable: bool = False) -> PeftModel:
    """Put a saved adapter on its base model; refuse anything that does not fit exactly.

    Args:
        base: The model that the adapter was trained on; it is modified in place.
        folder: What `save_adapter` wrote.
        trainable: Make the adapter trainable, to continue training.

    Raises:
        WeightsError: Naming the file, key or tensor: changed, missing, extra, misshaped, not finite, or a base model
            with other weights.
    """
    manifest = read_manifest(folder)
    config = read_config(folder / CONFIG_FILE)
    config.inference_mode = not trainable
    _check_base(base, manifest["base_probe"], folder)
    state = load_tensors(folder / WEIGHTS_FILE)
    _check_sizes(config, state, folder)
    try:
        model = get_peft_model(base, config)
    # of PEFT, for modules that are not there, or values that a layer cannot be built from
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, MemoryError) as error:
        raise WeightsError(f"{folder / CONFIG_FILE} does not fit this base model: {error}") from error
    restore_adapter(model, state, source=folder / WEIGHTS_FILE)
    return model


def restore_adapter(model: PeftModel, state: Mapping[str, Tensor], *, source: Path) -> None:
    """Copy an adapter's tensors into a model that has this adapter; all of them and nothing else."""
    expected = _adapter_tensors(model)
    problems = [f"tensor {key} is missing" for key in expected if key not in state]
    problems += [f"tensor {key} is not known" for key in state if key not in expected]
    problems += [
        f"tensor {key} has shape {tuple(state[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    problems += [f"tensor {key} is not finite" for key, value in state.items() if not value.isfinite().all()]
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise WeightsError(f"{source}: {'; '.join(problems[:3])}{more}. The adapter was not loaded.")
    set_peft_model_state_dict(model, dict(state), adapter_name=model.active_adapter)


def _adapter_tensors(model: PeftModel) -> dict[str, Tensor]:
    # False: PEFT would look for the base model's vocabulary, and warn that SAM has none
    return get_peft_model_state_dict(model, adapter_name=model.active_adapter, save_embedding_layers=False)


def base_probe(model: nn.Module) -> list[float]:
    """Values at fixed places of the frozen base weights: enough to tell one base model from another."""
    parameters = sorted(base_parameters(model).items())
    step = max(1, len(parameters) // _PROBE_SIZE)
    values = []
    for i, (_, parameter) in enumerate(parameters[::step][:_PROBE_SIZE]):
        flat = parameter.detach().flatten()
        values.append(float(flat[(7919 * (i + 1)) % flat.numel()]))  # a prime, so places differ from tensor to tensor
    return values


def _check_base(base: nn.Module, probe: list[float], folder: Path) -> None:
    mine = base_probe(base)
    same = len(mine) == len(probe) and all(
        isinstance(theirs, int | float) and abs(ours - theirs) <= _PROBE_TOLERANCE * abs(ours) + 1e-6
        for ours, theirs in zip(mine, probe, strict=False)
    )
    if not same:
        raise WeightsError(
            f"the adapter in {folder} was trained on another base model: the frozen weights differ. Load it on the "
            "base model that its card names."
        )


def _check_sizes(config: PeftConfig, state: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse a size beyond every axis of the file's tensors, before memory of that size is asked for."""
    largest = max((side for tensor in state.values() for side in tensor.shape), default=1)
    sizes = {name: getattr(config, name, None) for name in _SIZES} | (getattr(config, "rank_pattern", None) or {})
    for name, size in sizes.items():
        if isinstance(size, int) and size > largest:
            raise WeightsError(
                f"{folder / CONFIG_FILE}: {name}={size} does not fit {WEIGHTS_FILE}, where no axis is longer than "
                f"{largest}. Copy the adapter folder again."
            )


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file, whole or not at all."""
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; anything else is a `WeightsError`."""
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, OSError, torch.cuda.OutOfMemoryError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}. Copy it again.") from error
