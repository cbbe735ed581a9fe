"""Predicted classes as the pictures that are written."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from convlora.data.labels.bits import unpack
from convlora.data.labels.colours import Colour

PRESENT = 255
"""Value of pixels of the class in a mask of one class."""


def mask_pictures(
    ids: np.ndarray, colours: Mapping[int, Colour], *, multilabel: bool = False, palette: bool = False
) -> list[Image.Image]:
    """One picture of class ids; where classes may overlap one a class, of 0 and `PRESENT`.

    Args:
        ids: uint8 (H, W) class ids, or int32 (H, W) bit fields (`convlora.data.labels.bits`).
        colours: RGB by class id, of all classes.
        multilabel: Which of them.
        palette: Store the values as indices of a palette of these colours, instead of as grey. The values are the same,
            and numpy, PIL, GDAL and this package read them; OpenCV, imageio and scikit-image read the colours.
    """
    if not multilabel:
        return [_picture(ids, colours if palette else None)]
    return [
        _picture(unpack(ids, class_id) * np.uint8(PRESENT), {PRESENT: colours[class_id]} if palette else None)
        for class_id in sorted(colours)
        if class_id
    ]


def _picture(values: np.ndarray, colours: Mapping[int, Colour] | None) -> Image.Image:
    picture = Image.fromarray(values)
    if colours is not None:
        table = np.zeros((256, 3), dtype=np.uint8)
        for value, colour in colours.items():
            table[value] = colour
        picture.putpalette(table.tobytes())  # what was grey becomes an index
    return picture
