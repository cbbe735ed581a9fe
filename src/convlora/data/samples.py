"""One image of a data set and what belongs to it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from convlora.data.sources import ImageSource, MaskSource
from convlora.errors import PairingError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """An image with its mask, if there is one, and its split, if the user gave one."""

    name: str
    image: ImageSource
    mask: MaskSource | None = None
    split: str | None = None
    group: str | None = None
    """What it must stay together with in one split: the volume or patient that it is of, if the source says so."""

    def required_mask(self) -> MaskSource:
        """The mask.

        Raises:
            PairingError: there is none.
        """
        if self.mask is None:
            raise PairingError(f"{self.image}: has no mask, which training and evaluation need; give --masks.")
        return self.mask


_LONGEST = 400  # characters of one item in a message
_DOUBLE_SUFFIXES = (".nii.gz", ".ome.tif", ".ome.tiff")


def stem(path: Path) -> str:
    """File name without suffix, in Unicode form NFC: file systems and archives store é in two ways."""
    double = next((suffix for suffix in _DOUBLE_SUFFIXES if path.name.lower().endswith(suffix)), None)
    return unicodedata.normalize("NFC", path.name[: -len(double)] if double else path.stem)


def unique_names(paths: Sequence[Path]) -> list[str]:
    """The stems of different paths or, if two are equal, the paths as they are with forward slashes."""
    stems = [stem(path) for path in paths]
    return stems if len(set(stems)) == len(stems) else [path.as_posix() for path in paths]


def counted(count: int, one: str, several: str) -> str:
    """A number with the words that go with it, such as "image is" and "images are"."""
    return f"{count} {one if count == 1 else several}"


def first_few(items: Iterable[object], count: int = 3) -> str:
    """The first items of a list for an error message, long ones cut, and how many more there are."""
    texts = [text if len(text := str(item)) <= _LONGEST else f"{text[: _LONGEST // 2]} …" for item in items]
    more = f" and {len(texts) - count} more" if len(texts) > count else ""
    return ", ".join(texts[:count]) + more
