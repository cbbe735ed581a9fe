"""How far colours of a mask are from those of a table; a distance is the largest difference of a channel, 0..255."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convlora.data.labels.colour_tables import TRANSPARENT, UNSURE, ColourTable, colour_text, rgb
from convlora.errors import SettingsError

_CHUNK = 2**16
_FAR = 256  # beyond all distances
_FLAT = 0.02  # share of the pixels beyond which a single colour is no mixture of others


@dataclass(frozen=True)
class NearestColours:
    """Colours that are not in the table, and what is near them."""

    values: np.ndarray
    """int32 (n,): for each pixel asked for, the value of the near colour, or `UNSURE`."""
    found: np.ndarray
    """int64 (k,): the different values."""
    counts: np.ndarray
    """Pixels of each."""
    distances: np.ndarray
    """Of each to the nearest colour."""
    nearest: tuple[tuple[str, int], ...]
    """Name and value of that colour."""
    source: str

    def too_far(self, total: int, tolerance: int) -> str | None:
        """What is wrong, in words, if a colour is no mixture of those in the table; None if nothing is.

        Args:
            total: Number of pixels of the masks.
            tolerance: Without one, every colour counts; with one, those that fill a part of the masks by themselves.
        """
        far = self.distances > tolerance
        wrong = far if tolerance == 0 else far & (self.counts > _FLAT * total)
        if not wrong.any():
            return None
        order = np.flatnonzero(wrong)[np.argsort(-self.counts[wrong], kind="stable")]
        texts = "; ".join(self._text(int(i)) for i in order[:3])
        more = f" and {len(order) - 3} more" if len(order) > 3 else ""
        affected = int(self.counts[wrong].sum())
        remedy = "Add them to the table, where the name ignore leaves pixels out, or mend the masks."
        if tolerance == 0 and len(order) > 16:
            remedy = (
                "They look smeared by lossy compression or smooth resizing: export the masks as PNG or, where that "
                "cannot be, take near colours for those of the table with --colour_tolerance."
            )
        return f"{affected} of {total} pixels have colours that are not in {self.source}: {texts}{more}. {remedy}"

    def _text(self, i: int) -> str:
        (name, value), distance = self.nearest[i], int(self.distances[i])
        near = f", {distance} off {name} {rgb(value)}" if distance < _FAR else ""
        return f"{colour_text(int(self.found[i]))} ({int(self.counts[i])} pixels{near})"


def nearest_colours(values: np.ndarray, table: ColourTable, tolerance: int) -> NearestColours:
    """The colour of a table that each value (n,) is near to."""
    found, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    entries = [(name, value) for name, value in table.entries if value != TRANSPARENT]
    known = np.array([value for _, value in entries], dtype=np.int64)
    best, distances = np.zeros(len(found), dtype=np.int64), np.full(len(found), _FAR)
    for begin in range(0, len(found) if entries else 0, _CHUNK):  # a smeared mask has hundreds of thousands of colours
        part = slice(begin, begin + _CHUNK)
        each = np.abs(_channels(found[part])[:, None] - _channels(known)[None]).max(-1)
        best[part], distances[part] = each.argmin(1), each.min(1)
    distances[found == TRANSPARENT] = _FAR
    snapped = np.where(distances <= tolerance, known[best] if entries else UNSURE, UNSURE)
    nearest = tuple(entries[i] if entries else ("", 0) for i in best)
    return NearestColours(snapped[index].astype(np.int32), found, counts, distances, nearest, table.source)


def require_distinct(table: ColourTable, tolerance: int) -> None:
    """Refuse a tolerance within which a colour could be that of two classes.

    Raises:
        SettingsError: It is, and says how much can be.
    """
    entries = [(name, value) for name, value in table.entries if value != TRANSPARENT]
    if not tolerance or len(entries) < 2:
        return
    names, channels = np.array([name for name, _ in entries]), _channels(np.array([value for _, value in entries]))
    distances = np.abs(channels[:, None] - channels[None]).max(-1)
    distances[names[:, None] == names[None]] = _FAR
    one, other = (int(i) for i in np.unravel_index(int(distances.argmin()), distances.shape))
    nearest = int(distances[one, other])
    if 2 * tolerance >= nearest:
        raise SettingsError(
            f"colour_tolerance={tolerance} is too much: {entries[one][0]} {rgb(entries[one][1])} and "
            f"{entries[other][0]} {rgb(entries[other][1])} of {table.source} are {nearest} levels apart, so "
            f"{(nearest - 1) // 2} can be."
        )


def _channels(values: np.ndarray) -> np.ndarray:
    """int64 (n, 3) of values (n,)."""
    return np.stack([values >> 16 & 255, values >> 8 & 255, values & 255], axis=-1).astype(np.int64)
