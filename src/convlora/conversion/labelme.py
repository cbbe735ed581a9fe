"""LabelMe: a JSON file for each image.

A shape of LabelMe is one ring, so a polygon with holes goes into each hole through a cut of no width along pixel edges
(`keyholes`); or shapes are of LabelMe's type mask, a bitmap in a box. Shapes of one object share a `group_id`.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convlora.conversion.context import Conversion
from convlora.conversion.keyholes import one_ring
from convlora.conversion.pictures import Found, Picture
from convlora.conversion.texts import put_json, put_text
from convlora.data.sources import file_of

_VERSION = "5.5.0"  # of the file format; shapes of type mask are known since 5.2.1


def write(pictures: Iterable[Picture], folder: Path, how: Conversion) -> list[str]:
    """Write NAME.json for each image, which says where the image is, and labels.txt for `labelme --labels`."""
    parts = 0
    for picture in pictures:
        path = folder / f"{picture.name}.json"
        if how.options.copy_images:
            image = os.path.relpath(folder / picture.copy_image(folder, how.limits), path.parent)
        else:
            image = os.path.relpath(file_of(picture.image).absolute(), path.parent.absolute())
            parts += not isinstance(picture.image, Path)
        shapes: list[dict[str, Any]] = []
        for number, found in enumerate(picture.objects(how.options.objects), 1):
            drawn = _polygons(found, how) if how.as_polygons else [_mask(found)]
            group = number if len(drawn) > 1 else None
            shapes += [_shape(how.labels.classes[found.class_id], group, fields) for fields in drawn]
        height, width = picture.size
        put_json(
            path,
            {
                "version": _VERSION,
                "flags": {},
                "shapes": shapes,
                "imagePath": Path(image).as_posix(),
                "imageData": None,
                "imageHeight": height,
                "imageWidth": width,
            },
        )
    names = ("__ignore__", "_background_", *how.labels.classes[1:])
    put_text(folder / "labels.txt", "".join(f"{name}\n" for name in names))
    if parts:
        what = "parts of files, or of more than 8 bits, which LabelMe may not show"
        return [f"{parts} images are {what}; --copy_images writes them as PNG"]
    return []


def _shape(label: str, group: int | None, fields: dict[str, Any]) -> dict[str, Any]:
    return {"label": label, "points": [], "group_id": group, "description": "", "flags": {}, "mask": None, **fields}


def _polygons(found: Found, how: Conversion) -> list[dict[str, Any]]:
    rings = [one_ring(polygon) for polygon in how.outline(found)]
    return [{"shape_type": "polygon", "points": ring.astype(float).tolist()} for ring in rings]


def _mask(found: Found) -> dict[str, Any]:
    height, width = found.mask.shape
    stream = io.BytesIO()
    Image.fromarray(found.mask.astype(np.uint8)).save(stream, format="PNG")
    corners = [[found.left, found.top], [found.left + width - 1, found.top + height - 1]]  # both within
    return {
        "shape_type": "mask",
        "points": np.array(corners, dtype=float).tolist(),
        "mask": base64.b64encode(stream.getvalue()).decode("ascii"),
    }
