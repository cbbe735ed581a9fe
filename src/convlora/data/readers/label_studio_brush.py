"""Label Studio's brush strokes: the bytes of an RGBA picture, packed bit by bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convlora.data.readers.polygons import Cover
from convlora.errors import MaskError

_OPAQUE = 128
"""Pixels of at least this alpha are inside, the nearest to the rule that a pixel is inside if its centre is."""


@dataclass(frozen=True, eq=False, slots=True)
class Brush:
    """A region of brush strokes."""

    packed: bytes
    height: int
    """Of the picture that was painted on, in pixels."""
    width: int

    @property
    def area(self) -> float:
        """Pixels inside."""
        return float(np.count_nonzero(self._inside()))

    def cover(self, height: int, width: int) -> Cover:
        """Its pixels in an image of that size.

        Raises:
            MaskError: It is damaged, or of another size.
        """
        if (height, width) != (self.height, self.width):
            raise MaskError(f"a brush mask of {self.height} x {self.width} pixels (height x width) is of another size")
        return slice(0, height), slice(0, width), self._inside()

    def _inside(self) -> np.ndarray:
        values = unpacked(self.packed, 4 * self.height * self.width)
        return values.reshape(self.height, self.width, 4)[..., 3] >= _OPAQUE


def unpacked(packed: bytes, expected: int) -> np.ndarray:
    """The values that were packed.

    Bits, the highest of each byte first: 32 of the number of values; 5 of the bits a value has, less one; 4 times 4
    of the bits that four kinds of lengths have, less one. Then blocks follow until all values are there: one bit
    says whether all of the block's values are equal, two choose the kind of its length, which follows, less one;
    then comes the value, or one after the other.

    Args:
        packed: The bytes.
        expected: Number of values; others are refused before any memory is taken.

    Returns:
        uint8 (expected,).

    Raises:
        MaskError: Another number of values, values of more than 8 bits, or the bytes end too early.
    """
    bits = _Bits(packed)
    count, value_bits = bits.take(32), bits.take(5) + 1
    lengths = [bits.take(4) + 1 for _ in range(4)]
    if count != expected or value_bits > 8:
        raise MaskError(
            f"a brush mask of {count} values of {value_bits} bits, where {expected} of up to 8 are expected"
        )
    values = np.zeros(count, dtype=np.uint8)
    done = 0
    while done < count:
        equal = bits.take(1)
        length = min(bits.take(lengths[bits.take(2)]) + 1, count - done)
        values[done : done + length] = bits.take(value_bits) if equal else bits.take_many(length, value_bits)
        done += length
    return values


class _Bits:
    """Bytes, read bit by bit."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def take(self, count: int) -> int:
        """The number in the next bits, 32 at most."""
        first, end = self.place >> 3, self.place + count
        self._require(end)
        word = int.from_bytes(self.data[first : first + 5].ljust(5, b"\0"), "big")
        value = word >> (40 - (self.place & 7) - count) & ((1 << count) - 1)
        self.place = end
        return value

    def take_many(self, count: int, each: int) -> np.ndarray:
        """The next numbers of so many bits each: uint8 (count,)."""
        end = self.place + count * each
        self._require(end)
        first = self.place >> 3
        whole = np.unpackbits(np.frombuffer(self.data[first : (end + 7) >> 3], dtype=np.uint8))
        some = whole[self.place & 7 :][: count * each].reshape(count, each)
        self.place = end
        return np.packbits(some, axis=1)[:, 0] >> (8 - each)

    def _require(self, end: int) -> None:
        if end > 8 * len(self.data):
            raise MaskError("a brush mask ends too early")
