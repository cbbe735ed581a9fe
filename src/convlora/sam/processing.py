"""Images to model input, and logits back to masks at the image's own size. One copy for all uses."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from convlora.sam.checkpoints import locate

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESIZES = ("longest", "square")


class SamSegmentationImageProcessor(BaseImageProcessor):
    """Resize, normalise and pad images for SAM; turn its logits into masks.

    Args:
        size: Input side S in pixels.
        resize: "longest" keeps the aspect ratio (longest side to S, zero padding right and below, padding
            ignored in the loss and cut off from the masks); "square" squeezes to S × S, as the paper.
        image_mean, image_std: Of RGB in 0…1; of raw channels in their own units.
        ignore_index: Label of padding.
        tile: Side in pixels of the squares that larger images are cut into; images of at most this size are shown at
            the same scale, S / tile, and padded. None segments every image whole.
        overlap: Fraction of a tile that it shares with the next one; see `convlora.sam.segmenting`.
        intensity: How the values of images of more than 8 bits become RGB before they are given; see
            `convlora.data.scientific.windows`.
        channels: Number of raw channels of the images; None takes RGB.
        multilabel: Whether classes may overlap; then logits have a sigmoid each, and masks are bit fields.
        display_channels: Those that pictures show; see `convlora.data.pixels.display.visible_rgb`.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 - as transformers declares it

    def __init__(
        self,
        size: int = 1024,
        resize: str = "longest",
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        ignore_index: int = 255,
        tile: int | None = None,
        overlap: float = 0.25,
        intensity: str = "auto",
        channels: int | None = None,
        display_channels: Sequence[int] | None = None,
        multilabel: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if resize not in RESIZES:
            raise ValueError(f"resize={resize!r} must be one of {', '.join(RESIZES)}")
        self.size = size
        self.resize = resize
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        self.ignore_index = ignore_index
        self.tile = tile
        self.overlap = overlap
        self.intensity = intensity
        self.channels = channels
        self.multilabel = multilabel
        self.display_channels = list(display_channels) if display_channels is not None else None

    @classmethod
    def from_sam(cls, name_or_path: str | PathLike[str], **kwargs: Any) -> SamSegmentationImageProcessor:
        """The processor that fits a checkpoint of SAM; its mean and standard deviation are used if it gives them."""
        location = locate(name_or_path)
        config = AutoConfig.from_pretrained(location)
        try:
            given, _ = cls.get_image_processor_dict(location)
        except OSError:
            given = {}
        statistics = {name: given[name] for name in ("image_mean", "image_std") if name in given}
        return cls(**{"size": config.vision_config.image_size, **statistics, **kwargs})

    def __call__(
        self, images: Any, segmentation_maps: Any = None, return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """Prepare one image or a list of them.

        Args:
            images: uint8 arrays (H, W, 3), RGB, or PIL images; or, with `channels`, arrays (H, W, C) of any real
                numbers, where NaN is no data and becomes the channel's mean.
            segmentation_maps: Class ids (H, W) of each image, of its size.
            return_tensors: Ignored; tensors of torch are returned.

        Returns:
            `pixel_values` (b, 3 or C, S, S) float32 and, if masks are given, `labels` (b, S, S) int64.
        """
        return self.preprocess(images, segmentation_maps)

    def preprocess(self, images: Any, segmentation_maps: Any = None, **kwargs: Any) -> BatchFeature:
        """See `__call__`."""
        check = _as_rgb if self.channels is None else self._as_channels
        arrays = [check(image) for image in _as_list(images)]
        data: dict[str, Any] = {"pixel_values": torch.stack([self._pixels(array) for array in arrays])}
        if segmentation_maps is not None:
            maps = [np.asarray(segmentation_map) for segmentation_map in _as_list(segmentation_maps)]
            for array, segmentation_map in zip(arrays, maps, strict=True):
                if segmentation_map.shape != array.shape[:2]:
                    raise ValueError(f"a mask of {segmentation_map.shape} for an image of {array.shape[:2]}")
            data["labels"] = torch.stack([self._labels(segmentation_map) for segmentation_map in maps])
        return BatchFeature(data)

    def settings(self) -> dict[str, Any]:
        """The arguments that make an equal processor."""
        names = "size resize image_mean image_std ignore_index tile overlap intensity channels display_channels"
        return {name: getattr(self, name) for name in (*names.split(), "multilabel")}

    def content_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the S × S input that an image of this size fills, as SAM rounds them."""
        longest = max(height, width)
        if self.tile is not None and longest <= self.tile:
            longest = self.tile  # all tiles at one scale, those of images that are smaller than a tile too
        elif self.resize == "square":
            return self.size, self.size
        scale = self.size / longest
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))

    def _pixels(self, image: np.ndarray) -> Tensor:
        height, width = self.content_size(*image.shape[:2])
        mean, std = (np.asarray(values, dtype=np.float32) for values in (self.image_mean, self.image_std))
        if self.channels is None:
            mean, std = mean * 255, std * 255
        if image.dtype == np.uint8:  # raw channels of 8 bits, too: RGB among them gives what an RGB picture gives
            resized = _resized(image, height, width)
        else:
            resized = _resized(np.where(np.isnan(image), mean, image).astype(np.float32), height, width)
        pixels = np.zeros((len(mean), self.size, self.size), dtype=np.float32)
        pixels[:, :height, :width] = ((resized - mean) / std).transpose(2, 0, 1)
        return torch.from_numpy(pixels)

    def _as_channels(self, image: Any) -> np.ndarray:
        array = np.asarray(image)
        array = array[..., None] if array.ndim == 2 else array
        if array.ndim != 3 or array.shape[2] != self.channels or array.dtype.kind not in "buif":
            raise ValueError(f"images must be real numbers (H, W, {self.channels}); got {array.dtype} {array.shape}")
        return array

    def _labels(self, segmentation_map: np.ndarray) -> Tensor:
        height, width = self.content_size(*segmentation_map.shape)
        labels = np.full((self.size, self.size), self.ignore_index, dtype=np.int64)
        image = Image.fromarray(segmentation_map.astype(np.int32))
        labels[:height, :width] = np.asarray(image.resize((width, height), Image.Resampling.NEAREST))
        return torch.from_numpy(labels)

    def post_process_logits(self, logits: Tensor, target_size: tuple[int, int]) -> Tensor:
        """One image's logits (k, h, w) at its own size: (k, H, W) float32, padding cut off."""
        full = F.interpolate(logits[None].float(), size=(self.size, self.size), mode="bilinear", align_corners=False)
        height, width = self.content_size(*target_size)
        content = full[..., :height, :width]
        return F.interpolate(content, size=target_size, mode="bilinear", align_corners=False)[0]

    def classes_of(self, logits: Tensor) -> Tensor:
        """Class ids (H, W) int64 of one image's logits (k, H, W); of a multilabel task bit fields."""
        return overlapping_classes(logits) if self.multilabel else classes(logits)

    def probabilities_of(self, logits: Tensor) -> Tensor:
        """Class probabilities (K, H, W) of one image's logits (k, H, W).

        They sum to 1, but for a multilabel task: there each is for itself, and that of class 0, the background, is what
        the most probable class leaves.
        """
        return overlapping_probabilities(logits) if self.multilabel else class_probabilities(logits)

    def post_process_probabilities(self, outputs: Any, target_sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Class probabilities (K, H, W) of each image at its own size; K = 2 for a binary task."""
        probabilities = []
        for logits, size in zip(outputs.logits, target_sizes, strict=True):
            probabilities.append(self.probabilities_of(self.post_process_logits(logits, size)))
        return probabilities

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[Tensor]:
        """Class ids (H, W) int64 of each image; of a multilabel task bit fields (`convlora.data.labels.bits`).

        Args:
            outputs: Of `SamForSemanticSegmentation`.
            target_sizes: (height, width) of each original image; None keeps the logits' own size, padding
                included.
        """
        if target_sizes is None:
            return [self.classes_of(logits) for logits in outputs.logits]
        return [
            self.classes_of(self.post_process_logits(logits, size))
            for logits, size in zip(outputs.logits, target_sizes, strict=True)
        ]


def classes(logits: Tensor) -> Tensor:
    """Class ids (H, W) int64 of one image's logits (k, H, W)."""
    return (logits[0] > 0).long() if len(logits) == 1 else logits.argmax(0)


def class_probabilities(logits: Tensor) -> Tensor:
    """Probabilities (K, H, W) of one image's logits (k, H, W); K = 2 for k = 1."""
    if len(logits) > 1:
        return logits.softmax(0)
    foreground = logits.sigmoid()
    return torch.cat([1 - foreground, foreground])


def overlapping_classes(logits: Tensor) -> Tensor:
    """Bit fields (H, W) int64 of one image's logits (k, H, W): bit c - 1 where class c is."""
    bits = 2 ** torch.arange(len(logits), device=logits.device)
    return ((logits > 0) * bits[:, None, None]).sum(0)


def overlapping_probabilities(logits: Tensor) -> Tensor:
    """Probabilities (k + 1, H, W) of one image's logits (k, H, W), each for itself; first that of no class."""
    of_classes = logits.sigmoid()
    return torch.cat([1 - of_classes.amax(0, keepdim=True), of_classes])


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, C) uint8 or float32, each channel by itself, to another size; of the same type."""
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    channels = [Image.fromarray(np.ascontiguousarray(channel)) for channel in np.moveaxis(image, 2, 0)]
    return np.stack([np.asarray(c.resize((width, height), Image.Resampling.BILINEAR)) for c in channels], -1)


def _as_list(images: Any) -> list[Any]:
    return list(images) if isinstance(images, list | tuple) else [images]


def _as_rgb(image: Any) -> np.ndarray:
    array = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"images must be uint8 (H, W, 3), RGB; got {array.dtype} {array.shape}")
    return array
