"""CVAT: annotations.xml in the format "CVAT for images 1.1", objects as masks or polygons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from convlora.conversion.context import Conversion
from convlora.conversion.keyholes import one_ring
from convlora.conversion.pictures import Found, Picture
from convlora.conversion.texts import put_text
from convlora.data.labels.colours import as_hex
from convlora.data.readers.regions import Runs
from convlora.errors import MaskError


def write(pictures: Iterable[Picture], folder: Path, how: Conversion) -> list[str]:
    """Write annotations.xml.

    Raises:
        MaskError: A name of a class or an image holds a character that XML cannot.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    described = ElementTree.SubElement(task, "labels")
    for class_id, name in how.labels.id2label.items():
        if class_id:
            label = ElementTree.SubElement(described, "label")
            ElementTree.SubElement(label, "name").text = _text(name)
            ElementTree.SubElement(label, "color").text = as_hex(how.labels.palette[class_id])
            ElementTree.SubElement(label, "attributes")
    for number, picture in enumerate(pictures):
        file = picture.copy_image(folder / "images", how.limits) if how.options.copy_images else picture.file.as_posix()
        height, width = picture.size
        image = ElementTree.SubElement(
            root, "image", {"id": str(number), "name": _text(file), "width": str(width), "height": str(height)}
        )
        for group, found in enumerate(picture.objects(how.options.objects), 1):
            for tag, fields in _shapes(found, group, how):
                common = {"label": _text(how.labels.classes[found.class_id]), "source": "auto", "occluded": "0"}
                ElementTree.SubElement(image, tag, {**common, **fields, "z_order": "0"})
    ElementTree.indent(root)
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    put_text(folder / "annotations.xml", head + ElementTree.tostring(root, encoding="unicode") + "\n")
    return []


def _text(text: str) -> str:
    if re.search("[\0-\x1f\ud800-\udfff\ufffe\uffff]", text):
        raise MaskError(f"{text!r} holds a character that XML cannot; rename it.")
    return text


def _shapes(found: Found, group: int, how: Conversion) -> Iterator[tuple[str, dict[str, str]]]:
    if not how.as_polygons:
        height, width = found.mask.shape
        box = {"left": found.left, "top": found.top, "width": width, "height": height}
        yield "mask", {"rle": ", ".join(map(str, Runs.of(found.mask).counts)), **{k: str(v) for k, v in box.items()}}
        return
    drawn = how.outline(found)
    for polygon in drawn:
        points = ";".join(f"{x},{y}" for x, y in one_ring(polygon).tolist())
        yield "polygon", {"points": points, **({"group_id": str(group)} if len(drawn) > 1 else {})}
