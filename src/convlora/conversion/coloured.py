"""Masks in colour: palette PNGs whose pixel values are still class ids, and the table of the colours."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from convlora.conversion.context import Conversion
from convlora.conversion.pictures import Picture
from convlora.conversion.texts import put_text
from convlora.data.settings import IGNORE
from convlora.errors import MaskError


def write(pictures: Iterable[Picture], folder: Path, how: Conversion) -> list[str]:
    """Write NAME.png and labelmap.txt, whose lines name the classes as CVAT and Pascal VOC do: name:R,G,B::.

    If there are pixels without a class, a last line names their colour `ignore`, as `--mask_format colours` reads it.

    Raises:
        MaskError: Classes overlap, or two have the same colour, so that the colours would not tell them apart; or a
            name would not be read again as it is.
    """
    if how.labels.multilabel:
        raise MaskError(
            "the classes of this model overlap, which one colour a pixel cannot show. Choose coco, labelme, yolo, "
            "cvat or geojson."
        )
    colours = how.labels.palette
    if len(set(colours.values())) < len(colours):
        twice = next(c for c in colours.values() if list(colours.values()).count(c) > 1)
        names = [how.labels.classes[class_id] for class_id, colour in colours.items() if colour == twice]
        raise MaskError(f"the classes {' and '.join(names[:2])} have the same colour {twice}; give each its own.")
    if odd := [name for name in how.labels.classes if _means_something_else(name)]:
        raise MaskError(f"the name {odd[0]!r} means something else in labelmap.txt; choose another format.")
    rest = next(grey for level in range(255, -1, -1) if (grey := (level,) * 3) not in colours.values())
    palette = [channel for i in range(256) for channel in colours.get(i, rest)]
    ignored = 0
    for picture in pictures:
        ignored += picture.ignored
        path = folder / f"{picture.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(picture.ids)
        image.putpalette(palette)
        image.save(path, format="PNG")
        if how.options.copy_images:
            picture.copy_image(folder / "images", how.limits)
    named = [(how.labels.classes[i], colour) for i, colour in colours.items()] + [(IGNORE, rest)] * (ignored > 0)
    lines = [f"{name}:{','.join(map(str, colour))}::\n" for name, colour in named]
    put_text(folder / "labelmap.txt", "# label:color_rgb:parts:actions\n" + "".join(lines))
    return []


def _means_something_else(name: str) -> bool:
    """Whether a name has what separates fields or lines, begins like a comment, or is that of ignored pixels."""
    return ":" in name or name.splitlines() != [name] or name.startswith("#") or name.lower() == IGNORE
