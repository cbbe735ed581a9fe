"""LabelMe's JSON: the shapes drawn on one image, perhaps with the image itself."""

from __future__ import annotations

import base64
import binascii
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convlora.data.pixels.decoding import Embedded
from convlora.data.pixels.masks import read_mask
from convlora.data.readers.json_files import is_name, looks_like, read_json, shown
from convlora.data.readers.polygons import Region, Runs, ellipse, polygon, rectangle, usable
from convlora.data.settings import ImageLimits
from convlora.errors import DataError, ImageError, MaskError

_NO_AREA = ("line", "linestrip", "point", "points")
_ROUND, _POLYGONS = "circle", ("polygon", "oriented_rectangle", "rotation")  # the last as X-AnyLabeling calls it
_Drawn = tuple[str, Region]


@dataclass(frozen=True)
class LabelmeFile:
    """One file."""

    path: Path
    image_path: str
    """As written: relative to the file, or a path on another machine."""
    size: tuple[int, int] | None
    """Height and width, if the file says."""
    has_image: bool
    """Whether the image itself is in the file."""
    shapes: tuple[_Drawn, ...]
    """Labels and regions, in the order of drawing."""


@dataclass(frozen=True)
class LabelmeImage:
    """The image in a LabelMe file; see `convlora.data.readers.embedded.Cell`."""

    path: Path

    def __str__(self) -> str:
        return f"{self.path}, imageData"

    def data(self) -> bytes:
        """The bytes of the image file."""
        try:
            content = read_json(self.path)
            return _decoded(content.get("imageData") if isinstance(content, dict) else None)
        except (DataError, ValueError) as error:
            raise ImageError(f"{self}: is not an image file in base 64 ({error}). Export it again.") from error


def read_labelme_file(path: Path, flaws: Counter[str], limits: ImageLimits) -> LabelmeFile:
    """Read a file; reasons why shapes are left out are counted in `flaws`.

    Raises:
        DataError: It is no such file, or a shape lacks what it needs.
    """
    content = read_json(path)
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise DataError(f'{path}: has no list "shapes", as LabelMe writes it. Remove the file, or save it again.')
    size = _size(content)
    try:
        drawn = tuple(_drawn(path, shapes, size, flaws, limits))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{path}: a shape that cannot be read ({error}). Save it again with LabelMe.") from error
    image_path = content.get("imagePath")
    has_image = isinstance(content.get("imageData"), str) and bool(content["imageData"])
    return LabelmeFile(path, image_path if isinstance(image_path, str) else "", size, has_image, drawn)


def _size(content: dict[str, Any]) -> tuple[int, int] | None:
    height, width = content.get("imageHeight"), content.get("imageWidth")
    known = type(height) is int and type(width) is int and 0 < height < 2**31 and 0 < width < 2**31
    return (height, width) if known else None  # type: ignore[return-value]  # old files do not say


def _drawn(
    path: Path, shapes: list[dict[str, Any]], size: tuple[int, int] | None, flaws: Counter[str], limits: ImageLimits
) -> Iterator[_Drawn]:
    for number, shape in enumerate(shapes, 1):
        where, label, kind = f"{path}: shape {number}", shape.get("label"), shape.get("shape_type") or "polygon"
        if not is_name(label):
            given = "no label" if label in (None, "") else f"{shown(label)} as its label, which is no name in one line"
            raise DataError(f"{where} has {given}. Give it one in LabelMe, or remove it.")
        if kind in _NO_AREA:
            flaws[f"no area ({kind})"] += 1
            continue
        points = np.array(shape.get("points"), dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
            flaws["coordinates that are not pairs of numbers"] += 1
            continue
        region = _region(where, str(kind), points, shape, limits)
        for kept in usable([region], size or (math.inf, math.inf), flaws):
            yield str(label).strip(), kept


def _region(where: str, kind: str, points: np.ndarray, shape: dict[str, Any], limits: ImageLimits) -> Region | str:
    if kind in _POLYGONS or (kind == "rectangle" and len(points) == 4):
        return polygon(points)
    if kind not in (_ROUND, "rectangle", "mask"):
        return f"a shape_type that is not known ({kind[:20]})"
    if len(points) != 2:
        return f"{len(points)} points instead of 2 ({kind})"
    (left, top), (right, bottom) = points
    if kind == _ROUND:  # the centre, and a point on the circle
        radius = math.hypot(right - left, bottom - top)
        return ellipse((left, top), (radius, radius))
    if kind == "rectangle":
        return rectangle(min(left, right), min(top, bottom), max(left, right), max(top, bottom))
    return _mask(where, (left, top), shape, limits)


def _mask(where: str, corner: tuple[float, float], shape: dict[str, Any], limits: ImageLimits) -> Runs | str:
    """A shape of type mask: a PNG of the part of the image between its points."""
    left, top = (round(min(max(value, -1e7), 1e7)) for value in corner)
    try:
        values = read_mask(Embedded(f"{where}, mask", _decoded(shape.get("mask"))), limits)
    except ValueError as error:
        raise MaskError(f"{where}: its mask is not a PNG in base 64 ({error}). Draw it again.") from error
    inside = values != 0
    return Runs.of(inside, top, left) if inside.any() else "no area"


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("there is none")
    text = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(text, validate=False)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def is_labelme(path: Path) -> bool:
    """Whether a JSON file is one of LabelMe; without parsing it, because shapes, and the image in it, may be long."""
    return looks_like(path, "{", ("shapes", "imagePath"))
