"""Real training steps of the real model on random pixels; what they take. Meant for a process of their own."""

from __future__ import annotations

import resource
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from transformers.utils import logging

from convlora.adapter import balance_loss
from convlora.data.pixels.masks import LabelFormat
from convlora.data.pixels.statistics import ChannelStatistics, Moments
from convlora.doctor.prediction import Measurement
from convlora.sam import SamForSemanticSegmentation
from convlora.sam.precision import autocast, pick_device, resolve_precision
from convlora.training.run import build_model
from convlora.training.settings import TrainSettings
from convlora.training.split import Split

_STEPS = 4  # the optimiser's state comes with the first one; the allocator settles by the third
_LONG = 6.0  # seconds, after which two steps are enough


@dataclass(frozen=True)
class Facts:
    """What torch says about the machine, and the model.

    Attributes:
        device: Type of the device that is used: cpu or cuda.
        precision: Number format of the matrix products.
        native_bf16: Whether the device computes bf16 itself.
        threads: Of torch on the processor.
        gpu: Name of the GPU, or None.
        gpu_memory: Its bytes, and those that are free.
        size: Side of the model's own input in pixels.
        patch: Side of a patch in pixels.
        encoder: Parameters of the image encoder.
        loaded: Bytes in use with the model loaded.
    """

    device: str
    precision: str
    native_bf16: bool
    threads: int
    gpu: str | None
    gpu_memory: tuple[int, int]
    size: int
    patch: int
    encoder: int
    loaded: float


def facts(model: str, precision: str, device: str) -> Facts:
    """Load a model and look at it.

    Raises:
        WeightsError: There is no such model.
    """
    _be_quiet()
    where = pick_device(device)
    sam = SamForSemanticSegmentation.from_pretrained(model).to(where)
    vision = sam.config.vision_config
    with_gpu = torch.cuda.is_available()
    free, total = torch.cuda.mem_get_info() if with_gpu else (0, 0)
    loaded = _in_use(where)
    return Facts(
        device=where.type,
        precision=resolve_precision(precision, where),
        native_bf16=resolve_precision("auto", where) == "bf16",
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if with_gpu else None,
        gpu_memory=(total, free + (int(loaded) if where.type == "cuda" else 0)),
        size=vision.image_size,
        patch=vision.patch_size,
        encoder=sum(p.numel() for p in sam.sam.vision_encoder.parameters()),
        loaded=loaded,
    )


def measure(
    model: str, precision: str, device: str, method: str, size: int, batch: int, channels: int | None = None
) -> Measurement:
    """Train a few steps at one setting: forward, both losses, backward, AdamW.

    Raises:
        RuntimeError: There is not enough memory.
    """
    _be_quiet()
    where = pick_device(device)
    settings = TrainSettings(
        images="",
        output="",
        model=model,
        method=method,
        image_size=size,
        precision=precision,
        device=device,
        channels=channels,
    )
    standard = Moments.of(np.zeros((1, 1, channels))) if channels is not None else None  # the pixels are random
    statistics = ChannelStatistics.of([standard]) if standard is not None else None
    tuned, _ = build_model(settings, Split({}, LabelFormat(("background", "foreground"), "ids", 255), None, statistics))
    tuned.to(where).train()
    loaded = _in_use(where)
    _forget_peak(where)
    seconds = _step_seconds(tuned, channels or 3, size, batch, resolve_precision(precision, where), where)
    return Measurement(method, size, batch, loaded, peak_memory(where), seconds)


def _step_seconds(
    model: PeftModel, channels: int, size: int, batch: int, precision: str, device: torch.device
) -> float:
    """The quickest step after the first."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    pixels = torch.randn(batch, channels, size, size, device=device)
    labels = torch.randint(0, 2, (batch, size, size), device=device)
    times: list[float] = []
    while len(times) < 2 or (len(times) < _STEPS and sum(times) < _LONG):
        start = time.perf_counter()
        with autocast(precision, device):
            loss = model(pixel_values=pixels, labels=labels).loss + balance_loss(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def _be_quiet() -> None:
    warnings.filterwarnings("ignore")
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _in_use(device: torch.device) -> float:
    """Bytes in use now; where the system does not tell, at most so far."""
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device))
    return _status("VmRSS") or peak_memory(device)


def peak_memory(device: torch.device) -> float:
    """Bytes that this process used at most, on a GPU for its tensors there; since `_forget_peak`, if it was called."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    # the system's own count first: ru_maxrss includes the parent's memory before an exec, and cannot be reset
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _status("VmHWM") or used * (1 if sys.platform == "darwin" else 1024)


def _forget_peak(device: torch.device) -> None:
    """Count from here, if the system allows it; else loading the model counts, too."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _status(name: str) -> float:
    """Bytes that Linux gives for a line of this process's status; 0 elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0.0)
