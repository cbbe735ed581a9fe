"""Shapes that people drew become masks of class ids; see `convlora.data.readers.regions` for the rule of pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from convlora.data.labels.bits import IGNORED, bit
from convlora.data.readers.regions import Cover, Polygon, Region, Runs, ellipse, polygon, rectangle, runs
from convlora.data.settings import ImageLimits
from convlora.errors import ImageError, MaskError

__all__ = [
    "BOX_ONLY",
    "IGNORE",
    "MOST_CLASSES",
    "Cover",
    "Polygon",
    "PolygonMask",
    "Region",
    "Runs",
    "Shape",
    "box_notes",
    "ellipse",
    "flaw_notes",
    "largest_first",
    "paint",
    "polygon",
    "rectangle",
    "runs",
    "usable",
]

IGNORE = 255
"""Value of pixels of regions that count neither in training nor in scores."""
MOST_CLASSES = 254
"""Classes that a mask can hold beside the background and `IGNORE`."""
BOX_ONLY = "a box instead of an outline"
"""Where flaws count objects of which only the box is known; these are ignored, not left out."""
_WORK = 1e9  # pixels that the shapes of one image may cover together, or 100 times the image if that is more
_EACH = 5_000  # pixels that could be painted in the time that a shape takes beside them


@dataclass(frozen=True, eq=False, slots=True)
class Shape:
    """One annotated object: the union of its parts."""

    class_id: int
    """1..254; 0 cuts out of what was painted before."""
    parts: tuple[Region, ...]
    ignore: bool = False
    """Whether it is a region to ignore, such as a crowd or a difficult object, whatever its class."""

    @property
    def area(self) -> float:
        """Of all parts, in pixels."""
        return sum(part.area for part in self.parts)


@dataclass(frozen=True)
class PolygonMask:
    """The mask of one image: shapes in an annotation file. Masks of one file are told apart by `name`."""

    path: Path
    """The annotation file."""
    name: str
    """The image, as the file calls it."""
    size: tuple[int, int]
    """Height and width in pixels."""
    shapes: tuple[Shape, ...] = field(compare=False, repr=False)
    """In the order of painting."""
    multilabel: bool = False
    """Whether shapes may overlap, so that the values are bit fields."""

    def __str__(self) -> str:
        return f"{self.path}, {self.name}"

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """Class ids, 0 and `IGNORE`, or bit fields: int32 (H, W).

        Raises:
            ImageError: More pixels than the limits allow.
            MaskError: The shapes cannot be painted; the message says why.
        """
        height, width = self.size
        if height < 1 or width < 1 or height * width > limits.max_pixels:
            raise ImageError(
                f"{self}: an image of {height} x {width} pixels (height x width) is not within 1 and the "
                f"{limits.max_pixels / 1e6:g} megapixels allowed. Correct it, or raise --max_megapixels."
            )
        try:
            return paint(self.shapes, self.size, multilabel=self.multilabel)
        except MaskError as error:
            raise MaskError(f"{self}: {error}. Correct or remove this shape.") from error


def paint(shapes: Iterable[Shape], size: tuple[int, int], *, multilabel: bool = False) -> np.ndarray:
    """Paint shapes in the order given, later ones over earlier ones.

    Regions to ignore become `IGNORE` where no other shape is, whatever their place in the order: they never cover a
    labelled object. Whatever lies outside of the image is cut off.

    Args:
        shapes: See also `largest_first`.
        size: Height and width.
        multilabel: A pixel is of the classes of all shapes that it is in, instead of the last one's.

    Returns:
        int32 (H, W): class ids, 0 where no shape is, `IGNORE`; of `multilabel`, bits (`convlora.data.labels.bits`).

    Raises:
        MaskError: A shape cannot be painted, or they cover the image absurdly often.
    """
    height, width = size
    ordered = list(shapes)
    mask = np.zeros(size, dtype=np.int32)
    ignored = IGNORED if multilabel else IGNORE
    left = max(_WORK, 100.0 * height * width) - _EACH * sum(len(shape.parts) for shape in ordered)
    for shape in sorted(ordered, key=lambda shape: not shape.ignore):  # stable: the order holds within both kinds
        for part in shape.parts:
            cover = part.cover(height, width) if left >= 0 else None
            left -= cover[2].size if cover is not None else 0
            if left < 0:
                raise MaskError(f"{len(ordered)} shapes cover the image of {height} x {width} pixels too often")
            if cover is None:
                continue
            rows, columns, inside = cover
            if multilabel and not shape.ignore:
                before = mask[rows, columns][inside]
                mask[rows, columns][inside] = np.where(before == IGNORED, 0, before) | bit(shape.class_id)
            else:
                mask[rows, columns][inside] = ignored if shape.ignore else shape.class_id
    return mask


def largest_first(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    """An order of painting in which small shapes stay visible; equally large ones keep their order."""
    return tuple(sorted(shapes, key=lambda shape: -shape.area))


def usable(parts: Iterable[Region | str], size: tuple[float, float], flaws: Counter[str]) -> tuple[Region, ...]:
    """Parts of a shape that can be painted; the flaws of the others are counted in `flaws`, for `flaw_notes`.

    Args:
        parts: What `polygon`, `runs` and their like gave.
        size: Height and width of the image, in the units of the coordinates.
        flaws: Is added to.
    """
    kept = []
    for part in parts:
        if isinstance(part, Polygon | Runs) and part.outside(*size):
            part = "all points outside of the image"
        if isinstance(part, str):
            flaws[part] += 1
        else:
            kept.append(part)
    return tuple(kept)


def flaw_notes(flaws: Counter[str], what: str = "shapes") -> list[str]:
    """What to tell of shapes that could not be used: the reasons of `polygon` and `runs` with their numbers.

    Returns:
        One note, or none if there are no flaws.
    """
    reasons = ", ".join(f"{count} with {reason}" for reason, count in sorted(flaws.items()))
    return [f"left out {sum(flaws.values())} {what}: {reasons}"] if flaws else []


def box_notes(boxes: int) -> list[str]:
    """What to tell of objects that are ignored because only their box is known; none if there are none."""
    return [f"{boxes} objects known only by their box: the box is ignored in training and scores"] if boxes else []
