"""From the name that a user gives a model to the model and its processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from convlora.errors import SettingsError
from convlora.sam.modeling import SamForSemanticSegmentation
from convlora.sam.processing import SamSegmentationImageProcessor
from convlora.unet import UNetForSemanticSegmentation
from convlora.unet.modeling import NAME as UNET


def load_base(
    name: str,
    *,
    id2label: dict[int, str],
    loss: str | None = None,
    head: str | None = None,
    num_queries: int | None = None,
    image_size: int | None = None,
    channels: int | None = None,
    multilabel: bool = False,
    class_weights: Sequence[float] | None = None,
    colours: Sequence[Sequence[int]] | None = None,
    ignore_index: int = 255,
) -> PreTrainedModel:
    """The segmenter that a method is applied to.

    Args:
        name: "unet", or a SAM as `SamForSemanticSegmentation.from_pretrained` takes it.
        id2label: Class names from 0 on.
        loss, head, num_queries, image_size, channels, multilabel: As there.
        class_weights: One number a class, background first, for the losses that take them.
        colours: RGB of each class, which pictures show it in.
        ignore_index: Label of pixels that do not count in the loss.

    Raises:
        WeightsError: There is no such checkpoint.
        SettingsError: Classes, head, loss or size do not fit, or MONAI is missing.
    """
    model: PreTrainedModel
    if name == UNET:
        if head not in (None, "classes"):
            raise SettingsError(f"head={head!r} is for SAM's mask decoder; model='unet' has head='classes' alone.")
        model = UNetForSemanticSegmentation.blank(
            id2label, loss=loss, image_size=image_size, channels=channels, multilabel=multilabel
        )
    else:
        model = SamForSemanticSegmentation.from_pretrained(
            name,
            id2label=id2label,
            loss=loss,
            head=head,
            num_queries=num_queries,
            image_size=image_size,
            channels=channels,
            multilabel=multilabel,
        )
    config = model.config
    if class_weights is not None:
        config.class_weights = list(class_weights)
        config.check()
    config.class_colours = [list(colour) for colour in colours] if colours is not None else None
    config.semantic_loss_ignore_index = ignore_index
    return model


def make_processor(
    name: str, model: PreTrainedModel, *, resize: str, tile: int | None = None, overlap: float = 0.25
) -> SamSegmentationImageProcessor:
    """The processor for a model of `load_base`.

    Args:
        name: That of the model.
        model: Gives the input size and the label to ignore.
        resize, tile, overlap: As `SamSegmentationImageProcessor` explains.
    """
    config = model.config
    settings: dict[str, Any] = {
        "resize": resize,
        "ignore_index": config.semantic_loss_ignore_index,
        "multilabel": config.multilabel,
        "tile": tile,
        "overlap": overlap,
    }
    if name == UNET:
        return SamSegmentationImageProcessor(size=config.image_size, **settings)
    return SamSegmentationImageProcessor.from_sam(name, size=config.vision_config.image_size, **settings)


def image_encoder(model: PreTrainedModel) -> nn.Module | None:
    """The encoder, of which most methods leave most weights as they are; None for a U-Net."""
    return model.sam.vision_encoder if isinstance(model, SamForSemanticSegmentation) else None
