"""CVAT's XML for images: the labels with their colours, and the shapes of each image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from convlora.data.labels.colours import Colour
from convlora.data.labels.colours import from_hex as colour_from_hex
from convlora.data.readers.polygons import Region, Runs, ellipse, polygon, rectangle, runs, usable
from convlora.data.readers.xml_files import elements
from convlora.errors import DataError

ROOT = "annotations"
_NO_AREA = ("polyline", "points", "cuboid", "skeleton", "tag")
_LARGEST_SIDE = 10**6


@dataclass(frozen=True)
class DrawnShape:
    """A shape with its label."""

    label: str
    region: Region
    z_order: float


@dataclass(frozen=True)
class DrawnImage:
    """An image and what was drawn on it."""

    name: str
    subset: str
    """As in a project: Train, Validation, default …; empty if there is none."""
    size: tuple[int, int]
    """Height and width."""
    shapes: tuple[DrawnShape, ...]
    """In the order of painting: by z_order, equal ones as in the file."""


@dataclass
class CvatFile:
    """What a file says."""

    path: Path
    labels: dict[str, Colour | None] = field(default_factory=dict)
    """In the order of the task."""
    images: list[DrawnImage] = field(default_factory=list)
    flaws: Counter[str] = field(default_factory=Counter)
    """Why shapes were left out, and how many."""


def read_cvat_file(path: Path) -> CvatFile:
    """Read a file of "CVAT for images 1.1".

    Raises:
        DataError: It is no such file, or an image or a shape lacks what it needs.
    """
    found = CvatFile(path)
    for element in elements(path, ROOT):
        if element.tag == "meta":
            found.labels |= _labels(element)
        elif element.tag == "track":
            raise DataError(f'{path}: is "CVAT for video", whose tracks are not read. Export "CVAT for images 1.1".')
        elif element.tag == "image":
            found.images.append(_image(element, found))
    if not found.images:
        raise DataError(f"{path}: holds no <image>, so nothing is annotated in it. Export the task again.")
    return found


def _labels(meta: Element) -> dict[str, Colour | None]:
    labels: dict[str, Colour | None] = {}
    for label in meta.iter("label"):
        name = (label.findtext("name") or "").strip()
        if name and not (label.findtext("parent") or "").strip():  # the points of a skeleton have a parent
            text = (label.findtext("color") or "").strip()
            try:
                labels.setdefault(name, colour_from_hex(text))
            except ValueError:
                labels.setdefault(name, None)
    return labels


def _image(element: Element, file: CvatFile) -> DrawnImage:
    name = element.get("name") or ""
    where = f"{file.path}: image {name[:80]!r}"
    size = tuple(_whole(element, key, where) for key in ("height", "width"))
    if not name or min(size) < 1 or max(size) > _LARGEST_SIDE:
        raise DataError(f"{where} has no name, or no size in pixels. Export the task again.")
    height, width = size
    drawn = []
    for shape in element:
        if shape.tag in _NO_AREA:
            file.flaws[f"no area ({shape.tag})"] += 1
        elif shape.tag in _SHAPES and shape.get("outside") != "1":
            label = (shape.get("label") or "").strip()
            if not label:
                raise DataError(f"{where}: a <{shape.tag}> has no label. Export the task again.")
            kept = usable([_SHAPES[shape.tag](shape, where)], (height, width), file.flaws)
            drawn += [DrawnShape(label, region, _number(shape, "z_order", where, "0")) for region in kept]
    ordered = sorted(drawn, key=lambda shape: shape.z_order)  # stable
    return DrawnImage(name, element.get("subset") or "", (height, width), tuple(ordered))


def _polygon(shape: Element, where: str) -> Region | str:
    text = (shape.get("points") or "").replace(";", ",")
    try:
        numbers = [float(number) for number in text.split(",")] if text.strip() else []
    except ValueError:
        return "coordinates that are not numbers"
    if len(numbers) % 2:
        return "coordinates that are not pairs"
    return polygon(np.array(numbers).reshape(-1, 2))


def _box(shape: Element, where: str) -> Region | str:
    left, top, right, bottom = (_number(shape, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
    turn = _number(shape, "rotation", where, "0")
    if not turn or not all(map(math.isfinite, (left, top, right, bottom, turn))):
        return rectangle(left, top, right, bottom)
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    x, y = (left + right) / 2, (top + bottom) / 2  # clockwise about the centre
    corners = [(left - x, top - y), (right - x, top - y), (right - x, bottom - y), (left - x, bottom - y)]
    return polygon([(x + dx * cos - dy * sin, y + dx * sin + dy * cos) for dx, dy in corners])


def _ellipse(shape: Element, where: str) -> Region | str:
    x, y, across, down = (_number(shape, key, where) for key in ("cx", "cy", "rx", "ry"))
    turn = _number(shape, "rotation", where, "0")
    if not all(map(math.isfinite, (x, y, across, down, turn))):
        return "coordinates that are not finite or far off any image"
    return ellipse((x, y), (abs(across), abs(down)), turn)


def _mask(shape: Element, where: str) -> Runs | str:
    left, top, width, height = (_whole(shape, key, where) for key in ("left", "top", "width", "height"))
    if not (0 < width <= _LARGEST_SIDE and 0 < height <= _LARGEST_SIDE):
        return "a size that is none"
    try:
        counts = [int(count) for count in (shape.get("rle") or "").split(",")]
    except ValueError:
        return "runs that are not whole numbers"
    return runs(counts, height, width, top, left)


_SHAPES: dict[str, Callable[[Element, str], Region | str]] = {
    "polygon": _polygon,
    "box": _box,
    "ellipse": _ellipse,
    "mask": _mask,
}


def _number(element: Element, key: str, where: str, default: str | None = None) -> float:
    text = element.get(key, default)
    try:
        return float(text)  # type: ignore[arg-type]  # None is refused below
    except (TypeError, ValueError):
        raise DataError(f"{where}: <{element.tag}> has {key}={str(text)[:20]!r}, which must be a number.") from None


def _whole(element: Element, key: str, where: str) -> int:
    number = _number(element, key, where)
    if not (math.isfinite(number) and number == int(number) and abs(number) < 2**31):
        raise DataError(f"{where}: <{element.tag}> has {key}={element.get(key)!r}, which must be a whole number.")
    return int(number)
