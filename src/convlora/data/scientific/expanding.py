"""Files of several pictures become samples of one picture each, with the mask that belongs to it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convlora.data.samples import Sample, first_few
from convlora.data.scientific.deep_png import open_deep_png
from convlora.data.scientific.dicom import find_series
from convlora.data.scientific.geotiff import GeoImage, GeoMask, GeoRaster, WhereData, open_geotiff
from convlora.data.scientific.grids import require_equal_grids
from convlora.data.scientific.kinds import image_kind, is_vectors, mask_kind
from convlora.data.scientific.nifti import open_nifti
from convlora.data.scientific.parts import StackImage, StackMask
from convlora.data.scientific.stacks import Stack
from convlora.data.scientific.tiff import open_tiff
from convlora.data.scientific.vectors import VectorLayer, VectorMask, layer_classes, read_layer
from convlora.data.settings import DataSettings, ImageLimits
from convlora.data.sources import MaskSource
from convlora.errors import MaskError, PairingError


@dataclass(frozen=True)
class Reading:
    """How scientific images are read; see the settings of the same names."""

    limits: ImageLimits = dataclasses.field(default_factory=ImageLimits)
    intensity: str = "auto"
    volume: int | None = None
    attribute: str | None = None
    channels: int | None = None
    coloured_masks: bool = False
    """Whether masks are pictures in colours; rasters of them are then read as any picture."""

    @classmethod
    def of(cls, settings: DataSettings) -> Reading:
        """As the settings say."""
        return cls(
            limits=settings.limits,
            intensity=settings.intensity,
            volume=settings.volume,
            attribute=settings.attribute,
            channels=settings.channels,
            coloured_masks=settings.mask_format == "colours",
        )


def expand(samples: Iterable[Sample], how: Reading) -> tuple[list[Sample], list[str]]:
    """Samples of one picture each; plain pictures stay as they are. And notes on what is left out.

    Pictures of a volume are called NAME_z000…, those of another stack NAME_p000…, with as many digits as it needs, at
    least three; a file of one picture keeps its name. What is of one volume is one group.

    Raises:
        ImageError: A header is not readable, beyond the limits, or of a kind that cannot be read.
        MaskError: Image and mask do not lie on the same grid.
        PairingError: An image has other numbers of pictures than its mask.
        SettingsError: A library is not installed.
    """
    samples = list(samples)
    notes: list[str] = []
    outlines = _Outlines.read([sample.mask for sample in samples], how)
    found: list[Sample] = []
    for sample in samples:
        found += _expanded(sample, how, outlines, notes) if isinstance(sample.image, Path) else [sample]
    names = Counter(sample.name for sample in found)
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise PairingError(f"{len(twice)} pictures would have the same name ({first_few(twice)}); rename the files.")
    return sorted(found, key=lambda sample: sample.name), [*notes, *outlines.notes()]


def slices(name: str, sample: Sample, stack: Stack, masks: Sequence[MaskSource] | None) -> list[Sample]:
    """A sample of a stack as one for each picture, with its mask."""
    image = GeoImage if isinstance(stack, GeoRaster) else StackImage
    letter = {"slice": "z", "page": "p"}.get(stack.unit)
    digits = max(3, len(str(stack.count - 1)))
    return [
        dataclasses.replace(
            sample,
            name=f"{name}_{letter}{i:0{digits}d}" if letter else name,
            image=image(stack, i),  # type: ignore[arg-type]
            mask=None if masks is None else masks[i],
            group=sample.group or (name if letter else None),
        )
        for i in range(stack.count)
    ]


@dataclass(frozen=True)
class _Outlines:
    """The layers of outlines among the masks, and the classes of all of them."""

    layers: dict[Path, VectorLayer]
    classes: tuple[str, ...]

    @classmethod
    def read(cls, masks: Iterable[MaskSource | None], how: Reading) -> _Outlines:
        paths = dict.fromkeys(mask for mask in masks if isinstance(mask, Path) and is_vectors(mask))
        layers = {path: read_layer(path, how.attribute) for path in paths}
        return cls(layers, layer_classes(list(layers.values())))

    def notes(self) -> list[str]:
        """What the user should know of them."""
        if not self.layers:
            return []
        attributes = sorted({layer.attribute or "" for layer in self.layers.values()})
        named = " and ".join(
            f"of attribute {name}" if name else "one for all, without an attribute" for name in attributes
        )
        notes = [f"classes of outlines: {named} (--attribute)"]
        if left_out := sum(layer.left_out for layer in self.layers.values()):
            notes.append(f"{left_out} outlines that are no polygons are left out")
        return notes


def _expanded(sample: Sample, how: Reading, outlines: _Outlines, notes: list[str]) -> list[Sample]:
    image = sample.image
    stacks = _image_stacks(image, how, notes) if isinstance(image, Path) else None
    if stacks is None:
        return [dataclasses.replace(sample, mask=_mask_of_picture(sample, how))]
    if sample.mask is not None and len(stacks) > 1:
        raise PairingError(
            f"{sample.image} holds {len(stacks)} series, but there is one mask, {sample.mask}; put each series into a "
            "folder of its own."
        )
    found = []
    for number, stack in enumerate(stacks, 1):
        masks = _masks(sample.mask, stack, how, outlines) if sample.mask is not None else None
        found += slices(sample.name if len(stacks) == 1 else f"{sample.name}-{number}", sample, stack, masks)
    return found


def _image_stacks(path: Path, how: Reading, notes: list[str]) -> Sequence[Stack] | None:
    """The stacks of an image; None if it is a plain picture."""
    kind = image_kind(path)
    if kind == "nifti":
        return [open_nifti(path, how.limits, how.volume)]
    if kind == "geotiff":
        return [open_geotiff(path, how.limits)]
    if kind == "dicom":
        series, left_out = find_series(path, how.limits)
        notes += left_out
        return series
    if kind == "png" and how.channels is None:
        return [open_deep_png(path, how.limits)]
    if kind == "tiff":
        stack = open_tiff(path, how.limits)
        # pages may be channels, which convlora.data.pixels.channels tells
        plain = how.channels is not None and (stack.count == 1 or stack.channels != how.channels)
        return None if plain else [stack]
    return None


def _mask_stack(path: Path, how: Reading) -> Stack | None:
    """The stack of a mask; None if it is a plain picture."""
    kind = mask_kind(path)
    if kind == "geotiff":
        return None if how.coloured_masks else open_geotiff(path, how.limits)
    if kind == "nifti":
        return open_nifti(path, how.limits)
    if kind == "tiff":
        return open_tiff(path, how.limits, as_mask=True)
    if kind == "dicom":
        series, _ = find_series(path, how.limits)
        if len(series) > 1:
            raise PairingError(f"{path}: holds {len(series)} series, and is the mask of one image; separate them.")
        return series[0]
    return None


def _masks(mask: MaskSource, stack: Stack, how: Reading, outlines: _Outlines) -> list[MaskSource]:
    """The mask of each picture of a stack."""
    if not isinstance(mask, Path):
        found: list[MaskSource] = [mask]
    elif mask in outlines.layers:
        if not isinstance(stack, GeoRaster):
            raise MaskError(f"{mask} holds outlines on earth, but {stack.path} has no place there; give a GeoTIFF.")
        found = [VectorMask(outlines.layers[mask], stack, outlines.classes)]
    elif (drawn := _mask_stack(mask, how)) is not None:
        require_equal_grids(stack, drawn)
        found = mask_parts(drawn)
    else:
        found = [mask]
    if len(found) != stack.count:
        raise PairingError(
            f"{mask} is one mask, but its image {stack.path} has {stack.count} {stack.unit}s. Each needs one."
        )
    if isinstance(stack, GeoRaster) and stack.may_lack_data:
        return [WhereData(one, stack) for one in found]
    return found


def mask_parts(stack: Stack) -> list[MaskSource]:
    """The pictures of a stack as masks."""
    return [GeoMask(stack) if isinstance(stack, GeoRaster) else StackMask(stack, i) for i in range(stack.count)]


def _mask_of_picture(sample: Sample, how: Reading) -> MaskSource | None:
    """The mask of a plain picture, which may itself be of a scientific format."""
    if not isinstance(sample.mask, Path):
        return sample.mask
    if is_vectors(sample.mask):
        raise MaskError(
            f"{sample.mask} holds outlines on earth, but {sample.image} has no place there; give a GeoTIFF."
        )
    stack = _mask_stack(sample.mask, how)
    if stack is None:
        return sample.mask
    if stack.count > 1:
        raise PairingError(
            f"{sample.mask} has {stack.count} {stack.unit}s, but its image {sample.image} is one picture."
        )
    return mask_parts(stack)[0]
