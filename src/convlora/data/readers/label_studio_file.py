"""Tasks of a Label Studio export, and the regions of their annotations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from convlora.data.pixels.decoding import IMAGE_SUFFIXES
from convlora.data.readers.json_files import is_name, read_json, shown
from convlora.data.readers.label_studio_brush import Brush
from convlora.data.readers.polygons import Region, ellipse, polygon, usable
from convlora.errors import DataError, MaskError

_READ = ("brush", "polygon", "rectangle", "ellipse")
_REGIONS = (*_READ, "keypoint", "bitmask", "vector", "magicwand")
_HASH = re.compile(r"^[0-9a-f]{8}-")


@dataclass(frozen=True)
class Task:
    """An image that somebody annotated."""

    number: str
    """Its id, for messages."""
    image: str
    """Path of its image, as far as its address tells."""
    results: list[dict[str, Any]]
    """Of its newest completed annotation."""

    @property
    def image_without_hash(self) -> str:
        """The image's path before Label Studio put a hash before its name on upload."""
        path = PurePosixPath(self.image)
        return path.with_name(_HASH.sub("", path.name) or path.name).as_posix()


def read_tasks(path: Path) -> tuple[list[Task], int, int]:
    """Tasks with a completed annotation, the number of those without, and of those with several.

    Raises:
        DataError: It is no JSON export of Label Studio, or a task has no image.
    """
    content = read_json(path, _compact)
    if not isinstance(content, list) or not all(isinstance(task, dict) for task in content):
        raise DataError(f"{path}: not a list of tasks, as Label Studio's export JSON is (JSON-MIN is another).")
    tasks, without, several = [], 0, 0
    for number, task in enumerate(content):
        task_id = shown(task.get("id", number))
        where = f"{path}: task {task_id}"
        annotations = task.get("annotations")
        if not isinstance(annotations, list) or not all(isinstance(entry, dict) for entry in annotations):
            raise DataError(f"{where} has no list of annotations. Export as JSON (JSON-MIN is another format).")
        completed = [entry for entry in annotations if not entry.get("was_cancelled")]
        several += len(completed) > 1
        if not completed:
            without += 1
            continue
        results = max(completed, key=_age).get("result")
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            raise DataError(f"{where} has an annotation without a list of results. Export it again.")
        tasks.append(Task(task_id, _image(where, task), results))
    return tasks, without, several


def size_of(task: Task, where: str) -> tuple[int, int] | None:
    """Height and width of the image as annotated; None if nothing was drawn.

    Raises:
        MaskError: The results differ, or the image was turned.
    """
    told = [(result.get("original_height"), result.get("original_width")) for result in task.results if _kind(result)]
    sizes = {(height, width) for height, width in told if type(height) is int and type(width) is int}
    if any(result.get("image_rotation") not in (None, 0) for result in task.results):
        raise MaskError(f"{where}: its image was turned in Label Studio, which is not read. Annotate it upright.")
    if len(sizes) > 1 or (told and not sizes) or any(not 0 < side < 2**31 for size in sizes for side in size):
        raise MaskError(f"{where}: original_height and original_width are missing, or differ between its regions.")
    return next(iter(sizes), None)


def regions(
    task: Task, size: tuple[int, int], flaws: Counter[str], where: str
) -> Iterator[tuple[tuple[str, ...], tuple[Region, ...]]]:
    """Labels and parts of each region, in the order of drawing.

    Args:
        task: Whose results.
        size: Height and width.
        flaws: Counts regions that cannot be painted.
        where: Begins messages.

    Raises:
        MaskError: A region is of a kind that is not read, or damaged.
    """
    together: dict[object, list[dict[str, Any]]] = {}
    for number, result in enumerate(task.results):
        if _kind(result) is not None:
            key = result.get("id")
            together.setdefault(key if isinstance(key, str | int) else (number,), []).append(result)
    for results in together.values():  # one region may come in two results: its outline, and its label
        labels = tuple(dict.fromkeys(label for result in results for label in _labels(result, where)))
        drawn = next((result for result in results if _kind(result)), None)
        kind = _kind(drawn) if drawn is not None else None
        if drawn is None or kind is None:
            continue
        if kind == "keypoint":
            flaws["points instead of an outline"] += 1
        elif kind not in _READ:
            raise MaskError(
                f"{where}: holds a {kind} region; brush, polygon, rectangle and ellipse are read. Convert it to one."
            )
        elif not labels:
            flaws["no label"] += 1
        elif parts := usable([_region(kind, drawn["value"], size, where)], size, flaws):
            yield labels, parts


def _age(annotation: dict[str, Any]) -> tuple[str, int]:
    """Grows with time: ISO times compare as text, numbers of annotations are given in turn."""
    changed = annotation.get("updated_at") or annotation.get("created_at") or ""
    number = annotation.get("id")
    return changed if isinstance(changed, str) else "", number if type(number) is int else -1


def _image(where: str, task: dict[str, Any]) -> str:
    """Path of the only image of a task.

    Raises:
        DataError: It has none, or several.
    """
    data = task.get("data")
    values = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
    images = {
        path for path in map(_path_in, values) if is_name(path) and PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES
    }
    if len(images) != 1:
        raise DataError(f"{where} has {len(images)} images in its data; one with a suffix such as .png is expected.")
    return images.pop()


def _path_in(address: str) -> str:
    """The path in a web, storage or local address: what follows ?d= or, else, host and bucket."""
    try:
        parts = urlsplit(address)
        inner = parse_qs(parts.query).get("d") if "local-files" in parts.path else None
    except ValueError:  # a host in broken brackets
        return ""
    return inner[0] if inner else unquote(parts.path)


def _kind(result: dict[str, Any]) -> str | None:
    """brush, polygon …; "" of a result that holds the label of a region only; None of one that is about no region."""
    name, value = result.get("type"), result.get("value")
    if not isinstance(name, str) or not isinstance(value, dict):
        return None
    if name == "labels":
        return ""
    kind = name.removesuffix("labels")
    return kind if kind in _REGIONS else None


def _labels(result: dict[str, Any], where: str) -> list[str]:
    names = result["value"].get(result["type"], []) if result["type"].endswith("labels") else []
    if not isinstance(names, list) or not all(is_name(name) for name in names):
        raise MaskError(f"{where}: a region's {result['type']} are no list of names. Export it again.")
    return [name.strip() for name in names]


def _region(kind: str, value: dict[str, Any], size: tuple[int, int], where: str) -> Region | str:
    height, width = size
    if kind == "brush":
        if value.get("format", "rle") != "rle" or not isinstance(value.get("rle"), bytes):
            raise MaskError(f"{where}: a brush region has no bytes in rle. Export it again.")
        return Brush(value["rle"], height, width)
    if kind == "polygon":
        points = value.get("points")
        if not isinstance(points, list) or not all(
            isinstance(point, list) and len(point) == 2 and all(map(_is_number, point)) for point in points
        ):
            return "coordinates that are not pairs of numbers"
        return polygon([(_pixels(x, width), _pixels(y, height)) for x, y in points])
    names = ("x", "y", "radiusX", "radiusY") if kind == "ellipse" else ("x", "y", "width", "height")
    numbers, turned = [value.get(name) for name in names], value.get("rotation", 0)
    if not all(map(_is_number, (*numbers, turned))):
        return "coordinates that are not numbers"
    x, y, across, down = (_pixels(n, side) for n, side in zip(numbers, (width, height) * 2, strict=True))
    angle = _pixels(turned, 100)
    if kind == "ellipse":
        return ellipse((x, y), (across, down), angle)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))  # clockwise about the corner (x, y)
    corners = ((0.0, 0.0), (across, 0.0), (across, down), (0.0, down))
    return polygon([(x + a * cos - b * sin, y + a * sin + b * cos) for a, b in corners])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pixels(percent: Any, side: int) -> float:
    """A percentage of a side; NaN if it is far too large to be one."""
    return percent / 100 * side if abs(percent) < 1e6 else float("nan")


def _compact(entry: dict[str, Any]) -> dict[str, Any]:
    """Run lengths as bytes: a list takes eight times the memory. Drafts and predictions are dropped."""
    packed = entry.get("rle")
    if isinstance(packed, list):
        try:
            entry["rle"] = bytes(packed)
        except (ValueError, TypeError):  # refused where it is used
            entry["rle"] = None
    if "annotations" in entry:
        return {key: entry[key] for key in ("id", "annotations", "data") if key in entry}
    return entry
