"""What kind of TIFF a file is, by the tags of its pages alone: quick, and without a library."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_MOST_PAGES = 3
_MOST_TAGS = 4096
_MOST_TEXT = 4096  # of a description, whose beginning tells
_GEO = {33550, 33922, 34264, 34735}  # scale, tie points, transformation, keys
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True)
class TiffKind:
    """Of the first pages of a file."""

    pages: int
    """Those of full size, 3 for more."""
    bits: int
    """The most of a sample of the first page."""
    samples: int
    """Of a pixel of the first page."""
    geo: bool
    """Whether the first page has a place on earth."""
    more: bool
    """Whether there are overviews, or pages that only a description tells of (ImageJ, tifffile)."""
    floating: bool
    """Whether samples are floating-point numbers or signed."""

    @property
    def ids(self) -> bool:
        """Whether it can be a mask like any other: one page of whole numbers of at most 16 bits."""
        return not self.geo and not self.more and self.pages == 1 and self.bits <= 16 and not self.floating

    @property
    def plain(self) -> bool:
        """Whether it is a picture like any other: one page of at most 8 bits, grey or in colour."""
        return not self.geo and not self.more and self.pages == 1 and self.bits <= 8 and self.samples <= 4


def tiff_kind(path: Path) -> TiffKind | None:
    """The kind of a TIFF file; None if it is none, or too damaged to tell."""
    try:
        with path.open("rb") as stream:
            return _kind(stream)
    except (OSError, struct.error, ValueError, OverflowError):
        return None


def _layout(head: bytes) -> tuple[str, bool] | None:
    """Byte order, and whether this is BigTIFF."""
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    version = struct.unpack(order + "H", head[2:4])[0] if order and len(head) >= 4 else 0
    return (order, version == 43) if order and version in (42, 43) else None


def _kind(stream: IO[bytes]) -> TiffKind | None:
    head = stream.read(16)
    layout = _layout(head)
    if layout is None:
        return None
    order, big = layout
    (offset,) = struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])
    pages: list[dict[int, tuple[int, ...] | bytes]] = []
    seen: set[int] = set()
    full = 0
    while offset and offset not in seen and full < _MOST_PAGES and len(seen) < 64:
        seen.add(offset)
        tags, offset = _directory(stream, offset, order, big)
        subtype = tags.get(254, (0,))
        if not (isinstance(subtype, tuple) and subtype and subtype[0] & 0b101):  # neither an overview nor a mask
            full += 1
            pages.append(tags)
    if not pages:
        return None
    first = pages[0]
    text = first.get(270, b"")
    return TiffKind(
        pages=full,
        bits=max(_numbers(first, 258, 1)),
        samples=_numbers(first, 277, 1)[0],
        geo=bool(_GEO & first.keys()),
        more=len(seen) > full or (isinstance(text, bytes) and _tells_of_pages(text)),
        floating=any(kind in (2, 3) for kind in _numbers(first, 339, 1)),
    )


def _tells_of_pages(text: bytes) -> bool:
    images = re.search(rb"^images=0*([0-9]{1,12})\s*$", text, re.MULTILINE) if text.startswith(b"ImageJ=") else None
    return (images is not None and int(images[1]) > 1) or (text.startswith(b"{") and b'"truncated": true' in text)


def _numbers(tags: dict[int, tuple[int, ...] | bytes], tag: int, default: int) -> tuple[int, ...]:
    value = tags.get(tag)
    return value if isinstance(value, tuple) and value else (default,)


def _directory(stream: IO[bytes], offset: int, order: str, big: bool) -> tuple[dict[int, tuple[int, ...] | bytes], int]:
    """The tags of a page that matter here, and the offset of the next page."""
    stream.seek(offset)
    (count,) = struct.unpack(order + ("Q" if big else "H"), stream.read(8 if big else 2))
    if count > _MOST_TAGS:
        raise ValueError(f"{count} tags")
    size, room, number = (20, 8, "Q") if big else (12, 4, "I")
    entries = stream.read(count * size)
    (following,) = struct.unpack(order + number, stream.read(room))
    tags: dict[int, tuple[int, ...] | bytes] = {}
    for start in range(0, count * size, size):
        tag, kind, items = struct.unpack_from(order + "HH" + number, entries, start)
        length = _SIZES.get(kind, 0) * items
        field = entries[start + size - room : start + size]
        if tag in _GEO:
            tags[tag] = ()
        elif tag in (254, 258, 277, 339, 270) and length:
            if length > room:
                stream.seek(struct.unpack(order + number, field)[0])
                field = stream.read(min(length, _MOST_TEXT))
            if kind == 2:
                tags[tag] = field[:length]
            elif kind in (3, 4):
                width, code = (2, "H") if kind == 3 else (4, "I")
                field = field[: min(length, len(field)) // width * width]
                tags[tag] = struct.unpack(f"{order}{len(field) // width}{code}", field)
    return tags, following
