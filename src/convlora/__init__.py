"""Conv-LoRA for the Segment Anything Model, and for any ViT.

Public names resolve on first use, so `import convlora` is quick and does not import torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "ConvLoraConfig": "convlora.adapter",
    "balance_loss": "convlora.adapter",
    "load_released_state_dict": "convlora.adapter",
    "set_token_grid": "convlora.adapter",
    "Predictor": "convlora.inference.predictor",
    "SamForSemanticSegmentation": "convlora.sam",
    "SamSegmentationImageProcessor": "convlora.sam",
    "EvaluateSettings": "convlora.evaluation.settings",
    "PredictSettings": "convlora.inference.settings",
    "TrainSettings": "convlora.training.settings",
    "evaluate": "convlora.evaluation.evaluate",
    "predict_folder": "convlora.inference.folder",
    "read_channels": "convlora.data.pixels.channels",
    "read_image": "convlora.data.pixels.images",
    "resume": "convlora.training.run",
    "train": "convlora.training.run",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'convlora' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
