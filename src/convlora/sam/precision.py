"""Devices and number formats: which ones a machine is quick with."""

from __future__ import annotations

import torch
from torch import nn

from convlora.errors import SettingsError

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The device of a name that torch knows; "auto" is a GPU if there is one.

    Raises:
        SettingsError: This machine, or the installed torch, has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # an AssertionError if torch was built without CUDA
        raise SettingsError(f"device={name!r} is not available here ({error}). Use auto or cpu.") from error
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """What "auto" means on a device: bf16 where the hardware has it, fp16 on older GPUs, else fp32.

    Raises:
        SettingsError: There is no such precision.
    """
    if name not in ("auto", "fp32", *_DTYPES):
        raise SettingsError(f"precision={name!r} must be one of auto, fp32, {', '.join(_DTYPES)}.")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu":
        # mkldnn emulates bf16 on other processors too, slower than fp32
        native = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return "bf16" if any(getattr(torch.cpu, check, lambda: False)() for check in native) else "fp32"
    return "fp32"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """A context in which matrix products are computed in `precision`."""
    return torch.autocast(device.type, _DTYPES.get(precision), enabled=precision in _DTYPES)


def store_frozen(encoder: nn.Module, precision: str) -> None:
    """Keep the frozen matrices and kernels of an encoder in the format that autocast would convert them to.

    Bit-equal under `autocast(precision, …)`, with half the memory and no conversion at each use; but for DoRA, which
    also takes the norm of each matrix, and then that of the rounded one. Norms, positions and everything trainable stay
    as they are.
    """
    if precision not in _DTYPES:
        return
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not any(p.requires_grad for p in module.parameters()):
            module.to(_DTYPES[precision])
