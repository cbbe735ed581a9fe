"""Everything that can be set about the data; light to import, because the command line's help needs it."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path

MASK_FORMATS = ("auto", "ids", "binary")
FORMATS = ("auto", "folders", "csv")


@dataclass(frozen=True)
class ImageLimits:
    """What an image file may ask of the machine."""

    max_pixels: int = 64_000_000
    """Height times width; a larger file is refused before it is decoded."""


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    """Random changes of the training images; their masks move along."""

    enabled: bool = True
    """false trains on the images as they are."""
    views: int | None = None
    """Number of different views of each image, used in turn by the epochs; default a new one each epoch."""
    flip_horizontal: bool = True
    """Swap left and right in half of the cases."""
    flip_vertical: bool = True
    """Swap top and bottom in half of the cases."""
    rotate: float = 15.0
    """Largest rotation to either side, in degrees."""
    scale: float = 0.2
    """Zoom between 1 / (1 + scale) and 1 + scale, log-uniform."""
    brightness: float = 0.2
    """Largest relative change of the brightness, 0 to 1."""
    contrast: float = 0.2
    """Largest relative change of the contrast, 0 to 1."""
    saturation: float = 0.1
    """Largest relative change of the saturation, 0 to 1."""

    @property
    def repeats(self) -> bool:
        """Whether the same pixels come again in later epochs."""
        return not self.enabled or self.views is not None

    def problems(self) -> list[str]:
        """Everything wrong with the values, one sentence each; empty if they can be used."""
        problems = (
            [] if self.views is None or self.views >= 1 else [f"augmentation.views={self.views} must be at least 1"]
        )
        bounds = {"rotate": 180.0, "scale": 9.0, "brightness": 1.0, "contrast": 1.0, "saturation": 1.0}
        return problems + [
            f"augmentation.{name}={value} must be between 0 and {high:g}"
            for name, high in bounds.items()
            if not 0 <= (value := getattr(self, name)) <= high
        ]


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the images and masks are, what the masks mean, and how they are split."""

    images: str
    """Folder of images, or a CSV file with columns image, mask and, optionally, split (train, val or test)."""
    masks: str | None = None
    """Folder of masks, paired with the images by stem; not with a CSV file."""
    format: str = "auto"
    """auto looks at the files and tells; folders: images and masks of equal stems; csv: a table of them."""
    classes: list[str] | None = None
    """Class names from id 0 (background) on; default: read off the masks."""
    mask_format: str = "auto"
    """auto detects and tells; ids: pixel values are class ids; binary: 0 is background, 255 foreground."""
    ignore_index: int = 255
    """Mask value of pixels that count neither in training nor in scores."""
    val_fraction: float = 0.15
    """Fraction of the images for validation; not used if the CSV file has splits."""
    test_fraction: float = 0.15
    """Fraction of the images for the test; not used if the CSV file has splits."""
    group: str | None = None
    """Regular expression; its first group names an image's volume or patient, which stays in one split."""
    split_seed: int = 0
    """Another number gives another split."""
    train_fraction: float = 1.0
    """Fraction of the training images that is used, at least one image; validation and test stay whole."""
    train_images: int | None = None
    """Number of training images that is used, instead of a fraction."""
    subset_seed: int | None = None
    """Another number uses other training images; smaller parts lie within larger ones. Default split_seed."""
    max_megapixels: float = 64.0
    """Images and masks of more megapixels are refused before they are decoded."""

    @property
    def limits(self) -> ImageLimits:
        """The limits of image files in pixels."""
        return ImageLimits(max_pixels=int(self.max_megapixels * 1_000_000))

    def data_part(self) -> DataSettings:
        """The settings of the data alone, their places given absolutely."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(DataSettings)}
        places = {name: str(Path(values[name]).absolute()) for name in ("images", "masks") if values[name] is not None}
        return DataSettings(**{**values, **places})

    def problems(self) -> list[str]:
        """Everything wrong with the values, one sentence each; empty if they can be used."""
        problems = [
            f"{name}={value} must be at least 0 and less than 1"
            for name in ("val_fraction", "test_fraction")
            if not 0 <= (value := getattr(self, name)) < 1
        ]
        if not problems and self.val_fraction + self.test_fraction >= 1:
            total = f"{self.val_fraction} + {self.test_fraction}"
            problems.append(f"val_fraction + test_fraction = {total} must be less than 1: some images must train")
        if self.format not in FORMATS:
            problems.append(f"format={self.format!r} must be one of {', '.join(FORMATS)}")
        if self.mask_format not in MASK_FORMATS:
            problems.append(f"mask_format={self.mask_format!r} must be one of {', '.join(MASK_FORMATS)}")
        if not 0 <= self.ignore_index <= 255:
            problems.append(f"ignore_index={self.ignore_index} must be between 0 and 255")
        if not (self.max_megapixels > 0 and math.isfinite(self.max_megapixels)):
            problems.append(f"max_megapixels={self.max_megapixels} must be finite and more than 0")
        return problems + self._subset_problems() + self._group_problems()

    def _subset_problems(self) -> list[str]:
        problems = []
        if not 0 < self.train_fraction <= 1:
            problems.append(f"train_fraction={self.train_fraction} must be more than 0 and at most 1")
        if self.train_images is not None and self.train_images < 1:
            problems.append(f"train_images={self.train_images} must be at least 1")
        if self.train_images is not None and self.train_fraction != 1:
            problems.append(
                f"train_images={self.train_images} and train_fraction={self.train_fraction} say the same in two ways; "
                "give one of them"
            )
        return problems

    def _group_problems(self) -> list[str]:
        if self.group is None:
            return []
        try:
            groups = re.compile(self.group).groups
        except re.error as error:
            return [f"group={self.group!r} is not a regular expression: {error}"]
        if groups == 0:
            return [rf"group={self.group!r} has no group; put parentheses around the part to keep, as in '^(\w+)_\d+$'"]
        return []
