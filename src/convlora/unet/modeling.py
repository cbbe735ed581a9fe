"""MONAI's U-Net behind the interface of the SAM segmenter, so that everything around a model serves both."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SemanticSegmenterOutput

from convlora.errors import SettingsError
from convlora.objectives.losses import check_loss, default_loss, get_loss

NAME = "unet"
"""What users call the model."""

_CHANNELS = (16, 32, 64, 128, 256)
_STRIDE = 2 ** (len(_CHANNELS) - 1)
_DEFAULT_SIZE = 512
_MIN_SIZE = 2 * _STRIDE  # instance normalisation needs more than one value a channel


class UNetSegmentationConfig(PretrainedConfig):
    """Classes, loss and input size of a U-Net; `id2label` is read as by `SamSegmentationConfig`."""

    model_type = "unet_segmentation"

    image_size: int = _DEFAULT_SIZE
    head: str = "classes"
    num_queries: int | None = None
    loss: str = "structure"
    semantic_loss_ignore_index: int = 255
    channels: int | None = None
    multilabel: bool = False
    class_weights: list[float] | None = None
    class_colours: list[list[int]] | None = None

    @property
    def num_masks(self) -> int:
        """Output channels: 1 for a binary task, else one per class; without the background if they may overlap."""
        if self.multilabel:
            return self.num_labels - 1
        return 1 if self.num_labels <= 2 else self.num_labels

    def check(self) -> None:
        """Raise a `SettingsError` unless the loss and its weights fit the classes."""
        check_loss(self.loss, self.num_masks, multilabel=self.multilabel, class_weights=self.class_weights)


class UNetForSemanticSegmentation(PreTrainedModel):
    """The residual U-Net of five levels that MONAI's tutorials use (16 to 256 channels, two convolutions a unit).

    Ronneberger et al., MICCAI 2015, arXiv 1505.04597, with the residual units of Kerfoot et al., STACOM 2018. It has
    1,625,420 parameters for RGB and one mask. MONAI takes seconds to import, so it is imported when a model is made.

    Raises:
        SettingsError: MONAI is not installed, the loss does not fit the classes, or the input size is no multiple of 16
            of at least 32.
    """

    config_class = UNetSegmentationConfig
    base_model_prefix = "network"
    main_input_name = "pixel_values"

    def __init__(self, config: UNetSegmentationConfig) -> None:
        super().__init__(config)
        config.check()
        if config.image_size < _MIN_SIZE or config.image_size % _STRIDE:
            near = max(_MIN_SIZE, round(config.image_size / _STRIDE) * _STRIDE)
            raise SettingsError(
                f"image_size={config.image_size} must be a multiple of {_STRIDE} of at least {_MIN_SIZE} for the "
                f"U-Net, such as {near}."
            )
        self.network = _network(config.channels or 3, config.num_masks)
        self.post_init()

    @classmethod
    def blank(
        cls,
        id2label: dict[int, str],
        *,
        loss: str | None = None,
        image_size: int | None = None,
        channels: int | None = None,
        multilabel: bool = False,
    ) -> UNetForSemanticSegmentation:
        """A U-Net whose weights are all 0: the base that every trained one is saved against.

        Args:
            id2label: Class names from 0 on.
            loss: Name of a loss; default `convlora.objectives.losses.default_loss`.
            image_size: Side of the input in pixels; default 512.
            channels: Number of raw channels; default RGB.
            multilabel: Whether classes may overlap.
        """
        config = UNetSegmentationConfig(
            id2label=id2label,
            label2id={label: i for i, label in id2label.items()},
            loss=loss or default_loss(len(id2label), multilabel=multilabel),
            image_size=_DEFAULT_SIZE if image_size is None else image_size,
            channels=channels,
            multilabel=multilabel,
        )
        config.name_or_path = NAME
        model = cls(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        return model

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any) -> SemanticSegmenterOutput:
        """Segment a batch.

        Args:
            pixel_values: (b, 3, S, S) normalised images, or (b, C, S, S) with `config.channels`.
            labels: (b, H, W) class ids in any size that covers the same area.

        Returns:
            `logits` (b, k, S, S), k = `config.num_masks`, and `loss` if labels are given.
        """
        logits = self.network(pixel_values)
        loss = None
        if labels is not None:
            full = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
            of_task = {"multilabel": self.config.multilabel, "class_weights": self.config.class_weights}
            loss = get_loss(self.config.loss, **of_task)(full, labels, self.config.semantic_loss_ignore_index)
        return SemanticSegmenterOutput(loss=loss, logits=logits)

    def _init_weights(self, module: nn.Module) -> None:
        """Keep what torch gave the layers."""


def _network(channels: int, num_masks: int) -> nn.Module:
    try:
        from monai.networks.nets import UNet
    except ImportError as error:
        raise SettingsError("the U-Net needs MONAI, which is not installed. Install convlora[unet].") from error
    strides = (2,) * (len(_CHANNELS) - 1)
    network: nn.Module = UNet(2, channels, num_masks, channels=_CHANNELS, strides=strides, num_res_units=2)
    return network
