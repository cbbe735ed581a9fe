"""YOLO: a text file of polygons for each image, as fractions of its size, and data.yaml.

A line is one ring, so holes are cut open (`keyholes`), and the parts of an object are lines of their own. Class
numbers do not count the background: class id 1 is number 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from convlora.conversion.context import Conversion
from convlora.conversion.keyholes import one_ring
from convlora.conversion.pictures import Picture
from convlora.conversion.texts import put_text
from convlora.errors import PairingError

_DIGITS = 10  # significant; far below a pixel's share of any image


def write(pictures: Iterable[Picture], folder: Path, how: Conversion) -> list[str]:
    """Write labels/NAME.txt for each image, empty if there is nothing, and data.yaml.

    Raises:
        PairingError: Two images would have the same file of labels.
    """
    seen: dict[Path, str] = {}
    for picture in pictures:
        path = folder / "labels" / picture.file.with_suffix(".txt")
        if (other := seen.setdefault(path, picture.file.name)) != picture.file.name:
            raise PairingError(
                f"the images {other} and {picture.file.name} would share {path.name}, because YOLO finds labels by the "
                "name without suffix. Rename one of them."
            )
        if how.options.copy_images:
            picture.copy_image(folder / "images", how.limits)
        height, width = picture.size
        lines = []
        for found in picture.objects(how.options.objects):
            for polygon in how.outline(found):
                fractions = (one_ring(polygon) / (width, height)).ravel().tolist()
                lines.append(" ".join([str(found.class_id - 1), *(f"{value:.{_DIGITS}g}" for value in fractions)]))
        put_text(path, "".join(f"{line}\n" for line in lines))
    names = {class_id - 1: name for class_id, name in how.labels.id2label.items() if class_id}
    table = {"path": ".", "train": "images", "val": "images", "names": names}
    put_text(folder / "data.yaml", yaml.safe_dump(table, sort_keys=False, allow_unicode=True))
    if how.options.copy_images:
        return []
    return ["YOLO looks for images beside labels: put them into the folder images, or give --copy_images"]
