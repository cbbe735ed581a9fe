"""Which classes masks in Pascal VOC's layout have: by a labelmap or a list of names, else VOC's own."""

from __future__ import annotations

import re
from pathlib import Path

from convlora.data.labels.colour_tables import ColourTable, read_colours, value_of
from convlora.data.labels.format import LabelFormat
from convlora.data.pixels.decoding import IMAGE_SUFFIXES, opened
from convlora.data.readers.coloured import with_table
from convlora.data.readers.found import FoundData
from convlora.data.settings import BACKGROUND, IGNORE, DataSettings, ImageLimits
from convlora.data.sources import file_of
from convlora.errors import PairingError

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_OWN_NAMES = re.compile(r"20(0[7-9]|1[0-2])_\d{6}")
_BORDER = (224, 224, 192)


def with_classes(found: FoundData, root: Path, settings: DataSettings) -> FoundData:
    """The same samples with their classes, if anything tells which they are.

    A labelmap.txt names classes and colours; class_names.txt, or the settings, name them in the order of their ids.
    Without these VOC's names count if the files are called as VOC's. Palette masks are read by their indices, unless
    a labelmap has other colours than the palette.

    Raises:
        PairingError: A list of names cannot be read.
        SettingsError: The labelmap cannot be used.
        ImageError: The first mask cannot be opened.
    """
    if settings.mask_format != "auto" or not found.samples:
        return found  # the user says how masks are read
    kind, palette = _look(file_of(found.samples[0].required_mask()), settings.limits)
    labelmap, names_file = root / "labelmap.txt", root / "class_names.txt"
    if labelmap.is_file():
        table = read_colours(str(labelmap))
        if kind == "colours" or (kind == "palette" and not _in_order(table, palette)):
            return with_table(found, table, settings)
        return FoundData(found.samples, _by_index(table, settings.ignore_index), notes=found.notes)
    own = sum(_OWN_NAMES.fullmatch(sample.name) is not None for sample in found.samples) * 2 > len(found.samples)
    names = (
        tuple(read_names(names_file)) if names_file.is_file() else tuple(settings.classes or (CLASSES if own else ()))
    )
    names = names[1:] if names[:1] == ("__ignore__",) else names  # LabelMe's lists of labels begin with id -1
    names = tuple(BACKGROUND if name == "_background_" else name for name in names)
    if kind == "colours" and names:
        entries = tuple((name, value_of(*colour_of(i))) for i, name in enumerate(names))
        return with_table(found, ColourTable("VOC's palette", (*entries, (IGNORE, value_of(*_BORDER)))), settings)
    if not names_file.is_file() and (settings.classes is not None or not own):
        unnamed = f"{root} has no labelmap.txt, so classes have no names; give them with --classes"
        return FoundData(found.samples, notes=[*found.notes, *([unnamed] if settings.classes is None else [])])
    drawn = tuple(colour_of(i) for i in range(len(names)))
    labels = LabelFormat(names, "ids", settings.ignore_index, colours=drawn)
    return FoundData(found.samples, labels, notes=found.notes)


def colour_of(class_id: int) -> tuple[int, int, int]:
    """VOC's colour of a class: the bits of the id dealt to red, green and blue, highest first."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (class_id >> bit & 1) << (7 - bit // 3)
    return channels[0], channels[1], channels[2]


def read_names(file: Path) -> list[str]:
    """The names in a file, one a line; without quotation marks and the suffixes of images.

    Raises:
        PairingError: It cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PairingError(f"{file}: cannot be read as a list of names ({error}).") from error
    names = [line.strip().strip('"') for line in lines if line.strip()]
    return [name.rsplit(".", 1)[0] if name.lower().endswith(IMAGE_SUFFIXES) else name for name in names]


def _by_index(table: ColourTable, ignore_index: int) -> LabelFormat:
    """The format of masks that hold the places of classes in a table, rather than their colours."""
    labels = table.labels(ignore_index)
    meanings = {place: meaning for place, (_, meaning) in enumerate(labels.table)}
    indices = tuple((meanings | {ignore_index: ignore_index}).items())
    return LabelFormat(labels.classes, "table", ignore_index, table=indices, colours=labels.colours)


def _in_order(table: ColourTable, palette: list[int]) -> bool:
    """Whether a palette begins with the colours of a table, so that indices are places in it."""
    values = [value_of(*palette[i : i + 3]) for i in range(0, len(palette) - 2, 3)]
    return values[: len(table.entries)] == [value for _, value in table.entries]


def _look(mask: Path, limits: ImageLimits) -> tuple[str, list[int]]:
    """Whether a mask holds "indices", "palette" or "colours"; and the palette as Pillow gives it."""
    with opened(mask, limits) as image:
        if image.mode == "P":
            return "palette", image.getpalette() or []
        return "colours" if image.mode in ("RGB", "RGBA", "CMYK") else "indices", []
