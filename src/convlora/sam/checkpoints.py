"""Where checkpoints are: the embedded one by name, everything else as transformers finds it."""

from __future__ import annotations

import functools
from os import PathLike
from pathlib import Path

from convlora.errors import WeightsError
from convlora.files import sha256

EMBEDDED = "sam-tiny"
_EMBEDDED_SHA256 = "69af494d4e6f25d563bf70d789b0079b3eef8a933d7813b7b62da379469bfbd4"


def locate(name_or_path: str | PathLike[str]) -> str:
    """Folder of the embedded checkpoint for "sam-tiny", after its hash was verified; any other name unchanged.

    Raises:
        WeightsError: The embedded weights are damaged.
    """
    return str(_verified_embedded()) if str(name_or_path) == EMBEDDED else str(name_or_path)


@functools.cache
def _verified_embedded() -> Path:
    folder = Path(__file__).parents[1] / "assets" / "sam-tiny"
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256(weights) != _EMBEDDED_SHA256:
        raise WeightsError(f"{weights} is missing or damaged (its SHA-256 differs). Install convlora again.")
    return folder
