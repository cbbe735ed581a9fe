"""A tuned segmenter as one small folder: adapter, decoder, processor, and what they belong to."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from peft import PeftModel

from convlora.adapter.config import PEFT_TYPE
from convlora.adapter.saving import MANIFEST_FILE, load_adapter, read_manifest, save_adapter
from convlora.data.scientific.windows import intensity_problem
from convlora.data.settings import MOST_CHANNELS
from convlora.errors import WeightsError
from convlora.files import write_text
from convlora.sam.checkpoints import NAMED
from convlora.sam.processing import RESIZES, SamSegmentationImageProcessor
from convlora.sam.segmenters import UNET, load_base

_CARD = """---
{base_line}library_name: peft
pipeline_tag: image-segmentation
tags:
{tags}
---

# Segmenter of {classes}

{kind} (`{model}`), tuned with the `convlora` package: {trained}.
{method}
## Use

```python
import convlora.adapter  # registers the method with PEFT
from convlora import Predictor

predictor = Predictor.from_folder("path/to/this/folder")
ids = predictor(image)  # {image} -> {answer}: {ids}
```

With PEFT alone, after the same import:

```python
from peft import PeftModel
from convlora.sam.segmenters import load_base

base = load_base("{model}", id2label={id2label}{head}{channels}{multilabel})
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```
"""

_PAPER = "Method: Zhong et al., *Convolution Meets LoRA*, ICLR 2024, arXiv 2401.17868.\n"
_BUILT_IN = (*NAMED, UNET)  # names that are no folders, whatever lies in the working folder


def save_segmenter(model: PeftModel, processor: SamSegmentationImageProcessor, folder: Path) -> None:
    """Save adapter, decoder, processor and a card into an existing folder."""
    config = model.get_base_model().config
    processor.save_pretrained(folder)
    metadata = {
        "model": _lasting_name(config.name_or_path),
        "id2label": {str(k): v for k, v in config.id2label.items()},
        "loss": config.loss,
        "head": config.head,
        "num_queries": config.num_queries,
        "colours": config.class_colours,
        "processor": processor.settings(),
    }
    save_adapter(model, folder, metadata=metadata)
    write_text(folder / "README.md", _card(model))


def load_segmenter(
    folder: Path, *, model: str | None = None, trainable: bool = False
) -> tuple[PeftModel, SamSegmentationImageProcessor]:
    """Load what `save_segmenter` saved, in evaluation mode.

    Args:
        folder: The adapter folder.
        model: The base SAM, if it is not where it was during training.
        trainable: Make the tuned parameters trainable.

    Raises:
        WeightsError: The folder is damaged or incomplete, or belongs to another base model.
    """
    metadata: Any = read_manifest(folder).get("metadata")
    problem = _problem(metadata)
    if problem is not None:
        raise WeightsError(f"{folder / MANIFEST_FILE} does not describe a segmenter: {problem}. Copy it again.")
    name = model or metadata["model"]
    processor = SamSegmentationImageProcessor(**metadata["processor"])
    if model is None and name not in _BUILT_IN and Path(name).is_absolute() and not Path(name).is_dir():
        raise WeightsError(f"{folder} needs its base SAM, which is not at {name} any more. Give its place as `model`.")
    base = load_base(
        name,
        id2label={int(number): label for number, label in metadata["id2label"].items()},
        loss=metadata["loss"],
        head=metadata.get("head", "classes"),  # once there was one head
        num_queries=metadata.get("num_queries"),
        image_size=processor.size,
        channels=processor.channels,
        multilabel=processor.multilabel,
        colours=metadata.get("colours"),
        ignore_index=processor.ignore_index,
    )
    return load_adapter(base, folder, trainable=trainable).eval(), processor


def _problem(metadata: Any) -> str | None:
    """What of a manifest's metadata is not as `save_segmenter` writes it; None if all of it is."""
    if not isinstance(metadata, dict) or not isinstance(processor := metadata.get("processor"), dict):
        return "no metadata with a processor"
    labels = metadata.get("id2label")
    number = r"0|[1-9][0-9]{0,5}"
    wanted = {
        "model": isinstance(metadata.get("model"), str),
        "id2label": isinstance(labels, dict)
        and all(re.fullmatch(number, key) and isinstance(label, str) for key, label in labels.items()),
        "loss": isinstance(metadata.get("loss"), str),
        "head": isinstance(metadata.get("head", "classes"), str),
        "num_queries": metadata.get("num_queries") is None or _is_integer(metadata["num_queries"]),
        "colours": metadata.get("colours") is None or _are_colours(metadata["colours"], labels),
    }
    count = processor["channels"] if _is_integer(processor.get("channels")) else 3
    settings = {
        "size": lambda value: _is_integer(value) and value > 0,
        "resize": lambda value: value in RESIZES,
        "image_mean": lambda value: _are_finite(value, count),
        "image_std": lambda value: _are_finite(value, count) and min(value) > 0,
        "ignore_index": _is_integer,
        "tile": lambda value: value is None or (_is_integer(value) and value > 0),  # of older adapters there is none
        "channels": lambda value: value is None or (_is_integer(value) and 1 <= value <= MOST_CHANNELS),
        "multilabel": lambda value: value is None or isinstance(value, bool),
        "display_channels": lambda value: value is None or _are_channels(value, count),
        "intensity": lambda value: value is None or (isinstance(value, str) and intensity_problem(value) is None),
        "overlap": lambda value: value is None or (isinstance(value, float) and 0 <= value < 1),
    }
    wrong = [f"{key}={metadata.get(key)!r}" for key, right in wanted.items() if not right]
    wrong += [
        f"processor.{key}={processor.get(key)!r}" for key, fits in settings.items() if not fits(processor.get(key))
    ]
    wrong += [f"processor.{key} is not known" for key in processor if key not in settings]
    return wrong[0] if wrong else None


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_channels(values: Any, count: int) -> bool:
    """Whether these are one or three numbers of channels."""
    return isinstance(values, list) and len(values) in (1, 3) and all(_is_integer(v) and 0 <= v < count for v in values)


def _are_colours(values: Any, labels: Any) -> bool:
    """Whether these are RGB values in 0..255, one of each class."""
    return (
        isinstance(values, list)
        and isinstance(labels, dict)
        and len(values) == len(labels)
        and all(isinstance(colour, list) and len(colour) == 3 for colour in values)
        and all(_is_integer(value) and 0 <= value <= 255 for colour in values for value in colour)
    )


def _are_finite(values: Any, count: int) -> bool:
    """Whether these are so many finite numbers."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    )


def _lasting_name(name: str) -> str:
    """A checkpoint's name that holds in every working folder."""
    return str(Path(name).absolute()) if name not in _BUILT_IN and Path(name).is_dir() else name


def _card(model: PeftModel) -> str:
    config = model.get_base_model().config
    peft = model.active_peft_config
    method = getattr(peft.peft_type, "value", peft.peft_type)
    name, id2label = _lasting_name(config.name_or_path), config.id2label
    on_hub = name not in _BUILT_IN and not Path(name).exists()
    tags = [] if name == UNET else ["segment-anything"]
    if method == PEFT_TYPE:
        tags.append("conv-lora")
    return _CARD.format(
        base_line=f"base_model: {name}\n" if on_hub else "",
        classes=", ".join(label for i, label in id2label.items() if i),
        tags="\n".join(f"- {tag}" for tag in [*tags, "semantic-segmentation"]),
        kind="A U-Net" if name == UNET else "SAM",
        model=name,
        method=_PAPER if method == PEFT_TYPE else "",
        trained=f"PEFT type {method}, with {', '.join(peft.modules_to_save)} tuned whole",
        ids=", ".join(f"{i} {label}" for i, label in id2label.items()),
        id2label=id2label,
        image=f"(H, W, {config.channels}) of convlora.read_channels" if config.channels else "uint8 (H, W, 3) RGB",
        channels=f", channels={config.channels}" if config.channels is not None else "",
        multilabel=", multilabel=True" if config.multilabel else "",
        answer="int32 (H, W), bit c - 1 where class c is" if config.multilabel else "uint8 (H, W) class ids",
        head=f', head="queries", num_queries={config.num_queries}' if config.head == "queries" else "",
    )
