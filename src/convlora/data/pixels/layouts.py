"""How an image file stores its pixels, in words."""

from __future__ import annotations

from pathlib import Path

from convlora.data.pixels.decoding import opened, raw_mode
from convlora.data.settings import ImageLimits
from convlora.data.sources import ImageSource, file_of
from convlora.errors import ImageError

_MODES = {
    "1": "black and white, 1 bit",
    "L": "grey, 8 bits",
    "LA": "grey with alpha, 8 bits",
    "P": "palette",
    "RGB": "RGB, 8 bits",
    "RGBA": "RGB with alpha, 8 bits",
    "CMYK": "CMYK, 8 bits",
    "I": "grey, 32 bits",
    "F": "grey, floating point",
}


def layout(source: ImageSource, limits: ImageLimits) -> str:
    """Channels and bit depth, such as "RGB, 8 bits"; of what is no picture file, what it says itself, or its suffix."""
    other = "".join(file_of(source).suffixes[-2:]).lower() or "no suffix"
    if not isinstance(source, Path):
        return str(getattr(source, "layout", f"part of a {other} file"))
    try:
        with opened(source, limits) as image:
            mode = str(image.mode)
            deep = ";16" in raw_mode(image) or mode.startswith("I;16")
            kind = _MODES.get(mode.partition(";")[0], mode)
            return kind.replace("8 bits", "16 bits").replace("32 bits", "16 bits") if deep else kind
    except ImageError:  # what reads it is not Pillow
        return f"{other} file"
