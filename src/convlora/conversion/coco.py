"""COCO: one JSON file of all images, objects as run lengths or polygons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convlora import __version__
from convlora.conversion.context import Conversion
from convlora.conversion.keyholes import one_ring
from convlora.conversion.pictures import Found, Picture
from convlora.conversion.texts import put_json


def write(pictures: Iterable[Picture], folder: Path, how: Conversion) -> list[str]:
    """Write annotations.json: an annotation an object, a category a class but the background, with its class id."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, 1):
        height, width = picture.size
        file = picture.copy_image(folder / "images", how.limits) if how.options.copy_images else picture.file.as_posix()
        images.append({"id": number, "width": width, "height": height, "file_name": file})
        for found in picture.objects(how.options.objects):
            annotation = _annotation(found, picture.size, how)
            annotations.append({"id": len(annotations) + 1, "image_id": number, **annotation})
    categories = [
        {"id": class_id, "name": name, "supercategory": "", "color": list(how.labels.palette[class_id])}
        for class_id, name in how.labels.id2label.items()
        if class_id
    ]
    put_json(
        folder / "annotations.json",
        {
            "info": {"description": "masks predicted by convlora", "version": __version__},
            "licenses": [],
            "images": images,
            "annotations": annotations,
            "categories": categories,
        },
    )
    return []


def _annotation(found: Found, size: tuple[int, int], how: Conversion) -> dict[str, Any]:
    segmentation: Any
    if how.as_polygons:
        segmentation = [one_ring(polygon).ravel().tolist() for polygon in how.outline(found)]
    else:
        segmentation = {"size": list(size), "counts": packed(runs(found, size))}
    height, width = found.mask.shape
    return {
        "category_id": found.class_id,
        "segmentation": segmentation,
        "area": found.area,
        "bbox": [found.left, found.top, width, height],
        "iscrowd": 0,
    }


def runs(found: Found, size: tuple[int, int]) -> list[int]:
    """Run lengths of an object down the columns of its image (H, W), outside and inside in turn, the first outside."""
    height, width = size
    columns = np.pad(found.mask.T.astype(np.int8), ((0, 0), (1, 1)))
    changes = np.argwhere(np.diff(columns, axis=1))
    bounds = (changes[:, 0] + found.left) * height + changes[:, 1] + found.top
    joined = bounds[1:-1:2] == bounds[2::2]  # the foot of a column and the head of the next
    bounds = bounds[np.concatenate([[True], np.repeat(~joined, 2), [True]])]
    rest = height * width - int(bounds[-1])
    lengths: list[int] = [*np.diff(bounds, prepend=0).tolist(), *([rest] if rest else [])]
    return lengths


def packed(counts: Sequence[int]) -> str:
    """COCO's text of run lengths: 5 bits a character, the lowest first; from the fourth number on differences to the
    one two places before."""
    text = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + 32 * more))
    return "".join(text)
