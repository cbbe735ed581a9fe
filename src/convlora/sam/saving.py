"""A tuned segmenter as one small folder: adapter, decoder, processor, and what they belong to."""

from __future__ import annotations

from pathlib import Path

from peft import PeftModel

from convlora.adapter.config import PEFT_TYPE
from convlora.adapter.saving import MANIFEST_FILE, load_adapter, read_manifest, save_adapter
from convlora.errors import WeightsError
from convlora.files import write_text
from convlora.sam.checkpoints import NAMED
from convlora.sam.processing import SamSegmentationImageProcessor
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
ids = predictor(image)  # uint8 (H, W, 3) RGB -> uint8 (H, W) class ids: {ids}
```

With PEFT alone, after the same import:

```python
from peft import PeftModel
from convlora.sam.segmenters import load_base

base = load_base("{model}", id2label={id2label}{head})
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
    metadata = read_manifest(folder).get("metadata", {})
    try:
        name = model or metadata["model"]
        id2label = {int(k): str(v) for k, v in metadata["id2label"].items()}
        loss = metadata["loss"]
        head, num_queries = metadata.get("head", "classes"), metadata.get("num_queries")  # once there was one head
        processor = SamSegmentationImageProcessor(**metadata["processor"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{folder / MANIFEST_FILE} does not describe a segmenter ({error!r}). Copy it again."
        ) from error
    if model is None and name not in _BUILT_IN and Path(name).is_absolute() and not Path(name).is_dir():
        raise WeightsError(f"{folder} needs its base SAM, which is not at {name} any more. Give its place as `model`.")
    base = load_base(
        name,
        id2label=id2label,
        loss=loss,
        head=head,
        num_queries=num_queries,
        image_size=processor.size,
        ignore_index=processor.ignore_index,
    )
    return load_adapter(base, folder, trainable=trainable).eval(), processor


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
        head=f', head="queries", num_queries={config.num_queries}' if config.head == "queries" else "",
    )
