"""The masks that `convlora predict` wrote, with the images that they belong to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convlora.data.labels.bits import IGNORED, pack
from convlora.data.labels.format import NO_DATA, LabelFormat, share, value_list
from convlora.data.pixels.channels import image_suffixes
from convlora.data.pixels.masks import read_mask
from convlora.data.readers.pairing import find_images
from convlora.data.samples import Sample, first_few
from convlora.data.scientific.expanding import Reading
from convlora.data.scientific.geometry import RasterGeometry, geometry_of
from convlora.data.scientific.geotiff import GeoMask, open_geotiff
from convlora.data.settings import ImageLimits
from convlora.data.sources import MaskSource, file_of
from convlora.errors import MaskError, PairingError
from convlora.inference.output import class_parts

_SUFFIXES = (".png", ".tif")


@dataclass(frozen=True)
class PredictedMask:
    """A mask of class ids and nothing else: what training may ignore, a prediction does not hold."""

    mask: MaskSource
    num_classes: int

    def __str__(self) -> str:
        return str(self.mask)

    @property
    def path(self) -> Path:
        """The file."""
        return file_of(self.mask)

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """Class ids, and `NO_DATA` of rasters, int32 (H, W).

        Raises:
            ImageError: The file cannot be read.
            MaskError: It holds other values.
        """
        values = read_mask(self.mask, limits)
        wrong = (values != NO_DATA) & ((values < 0) | (values >= self.num_classes))
        if wrong.any():
            affected = share(int(np.count_nonzero(wrong)), values.size)
            raise MaskError(
                f"{self}: values {value_list(np.unique(values[wrong]))} are no class ids of these {self.num_classes} "
                f"classes, 0..{self.num_classes - 1}; {affected} affected. Give masks as `convlora predict` writes "
                "them, and the run or all classes that they are of."
            )
        return values


@dataclass(frozen=True)
class OverlappingMask:
    """The masks of one image, one a class, as bit fields."""

    masks: tuple[MaskSource, ...]
    """That of class 1 first."""

    def __str__(self) -> str:
        return str(self.masks[0])

    @property
    def path(self) -> Path:
        """The first file."""
        return file_of(self.masks[0])

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """Bit fields int32 (H, W), see `convlora.data.labels.bits`.

        Raises:
            ImageError: A file cannot be read.
            MaskError: The files differ in size.
        """
        values = [read_mask(mask, limits) for mask in self.masks]
        if len(sizes := {value.shape for value in values}) > 1:
            raise MaskError(f"{self}: the masks of its classes differ in size: {first_few(sorted(sizes))}.")
        fields = pack(value > 0 for value in values)
        fields[values[0] == NO_DATA] = IGNORED
        return fields


def predicted_samples(
    images: str, masks: Path, labels: LabelFormat, limits: ImageLimits, channels: int | None = None
) -> tuple[list[Sample], list[str]]:
    """The images of a prediction with their masks, and a note on those without one.

    Args:
        images: As given to predict.
        masks: Its output folder: NAME.png; of rasters with a place on earth NAME.tif; of classes that may overlap one
            a class, NAME_CLASS.png.
        labels: The classes of the model.
        limits: Of images and masks.
        channels: How many raw channels the model takes; None if it takes pictures.

    Raises:
        PairingError: There is no mask, or one without an image, or without those of the other classes.
        ImageError: An image cannot be read.
    """
    if not masks.is_dir():
        raise PairingError(f"masks: {masks} is not a folder; give the output folder of `convlora predict`.")
    found = find_images(images, image_suffixes(channels), Reading(limits=limits, channels=channels))
    parts = [f"_{part}" for part in class_parts(labels.id2label)] if labels.multilabel else [""]
    present = {entry.name for entry in masks.iterdir() if entry.suffix in _SUFFIXES and not entry.name.startswith(".")}
    samples, without, known = [], [], set[str]()
    for sample in found:
        on_earth = isinstance(geometry_of(sample.image), RasterGeometry)
        files = [f"{sample.name}{part}{'.tif' if on_earth else '.png'}" for part in parts]
        there = present.intersection(files)
        if there and len(there) < len(files):
            raise PairingError(
                f"{masks}: has {min(there)}, but not {min(set(files) - there)}. Predict {sample.name} again."
            )
        if there:
            known |= there
            each = _masks([masks / file for file in files], on_earth, limits)
            mask = OverlappingMask(each) if labels.multilabel else PredictedMask(each[0], labels.num_classes)
            samples.append(Sample(sample.name, sample.image, mask))
        else:
            without.append(sample.name)
    foreign = sorted(present - known - _beside(samples, present))
    if foreign or not samples:
        what = f"{len(foreign)} masks have no image: {first_few(foreign)}" if foreign else "no image has a mask"
        raise PairingError(
            f"{what}; the mask of {found[0].image} would be {found[0].name}{parts[0]}.png in {masks}. Give the images "
            "that were given to predict."
        )
    note = f"{len(without)} of {len(found)} images have no mask and are left out: {first_few(without)}"
    return samples, [note] if without else []


def _masks(files: Sequence[Path], on_earth: bool, limits: ImageLimits) -> tuple[MaskSource, ...]:
    return tuple(GeoMask(open_geotiff(file, limits)) if on_earth else file for file in files)


def _beside(samples: Sequence[Sample], present: set[str]) -> set[str]:
    """Files that are no masks but overlays and probabilities of the images."""
    names = {sample.name for sample in samples}
    matches = {file: re.fullmatch(r"(.+)_(overlay|probability(_\d+)?)\.(png|tif)", file) for file in present}
    return {file for file, match in matches.items() if match and match[1] in names}
