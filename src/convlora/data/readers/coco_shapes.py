"""Outlines of one COCO annotation: polygons, or run lengths as numbers or packed into text."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from convlora.data.readers.json_files import shown
from convlora.data.readers.polygons import BOX_ONLY, Region, Shape, polygon, rectangle, runs, usable
from convlora.errors import MaskError


def shape(
    annotation: dict[str, Any], class_id: int, size: tuple[int, int], flaws: Counter[str], where: str
) -> Shape | None:
    """The shape of an annotation; None if nothing of it can be painted.

    Polygons of one annotation are its parts, so they are joined. A crowd is ignored; so is an object of which only
    the box is known, since its pixels are neither of its class nor of the background.

    Args:
        annotation: Its `segmentation`, `bbox` and `iscrowd`; numbers may be arrays.
        class_id: Of the shape.
        size: Height and width of the image.
        flaws: Counts what cannot be painted.
        where: Begins messages.

    Raises:
        MaskError: Its run lengths are damaged or not of the image's size.
    """
    outline = annotation.get("segmentation")
    crowd = any(annotation.get(key) in (1, True) for key in ("iscrowd", "ignore"))
    if isinstance(outline, dict):
        parts: tuple[Region, ...] = usable([_runs(outline, size, where)], size, flaws)
    elif isinstance(outline, list) and outline:
        parts = usable([_polygon(points) for points in outline], size, flaws)
    elif (box := _box(annotation.get("bbox"))) is not None:
        flaws[BOX_ONLY] += 1
        return Shape(class_id, (box,), ignore=True)
    else:
        flaws["neither outline nor box"] += 1
        return None
    return Shape(class_id, parts, crowd) if parts else None


def unpacked(text: str) -> np.ndarray | None:
    """Run lengths of COCO's compressed text: int64; None if it is none.

    Each number is written in characters of 5 bits from "0" on, the lowest bits first; 32 says that more follow, and
    bit 16 of the last one is the sign. From the fourth number on, the one two places before is taken away.
    """
    codes = np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8).astype(np.int64) - 48
    if len(codes) == 0 or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    last = (codes & 32) == 0
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    lengths = np.diff(np.append(starts, len(codes)))
    if lengths.max() > 8:  # 40 bits hold more than any image has pixels
        return None
    places = np.arange(len(codes)) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 31) << 5 * places, starts)
    values -= np.where(codes[last] & 16, np.int64(1) << 5 * lengths, 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _runs(outline: dict[str, Any], size: tuple[int, int], where: str) -> Region | str:
    told, counts = outline.get("size"), outline.get("counts")
    if not isinstance(told, list) or told != list(size):
        raise MaskError(
            f"{where}: run lengths of a mask of {shown(told)} pixels (height, width) in an image of {list(size)}. "
            "Export it again."
        )
    made = runs(unpacked(counts) if isinstance(counts, str) else counts, *size, by_columns=True)
    if isinstance(made, str) and made != "no area":
        raise MaskError(f"{where}: damaged, {made}. Export it again.")
    return made


def _polygon(points: Any) -> Region | str:
    if not isinstance(points, np.ndarray):
        return "coordinates that are not numbers"
    return polygon(points.reshape(-1, 2)) if len(points) % 2 == 0 else "an odd number of coordinates"


def _box(values: Any) -> Region | None:
    if not isinstance(values, list) or len(values) != 4 or not all(type(v) in (int, float) for v in values):
        return None
    left, top, width, height = (float(value) if abs(value) < 1e9 else float("nan") for value in values)
    made = rectangle(left, top, left + width, top + height)
    return None if isinstance(made, str) else made
