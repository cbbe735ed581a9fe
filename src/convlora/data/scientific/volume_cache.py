"""Decoded volumes that are kept for their next slice, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np

MOST_BYTES = 1 << 30
"""Volumes beyond it are forgotten, the one not used for longest first; the last one stays, however large."""


class VolumeCache:
    """Arrays by key; each is made once, also when several threads ask for it at the same time."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.most_bytes = most_bytes
        self._arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a key, made if it is not there; do not write into it."""
        with self._lock:
            if (array := self._find(key)) is not None:
                return array
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                if (array := self._find(key)) is not None:
                    return array
            try:
                array = make()
                array.flags.writeable = False
            finally:
                with self._lock:
                    self._making.pop(key, None)
            with self._lock:
                self._arrays[key] = array
                while len(self._arrays) > 1 and self._bytes() > self.most_bytes:
                    self._arrays.popitem(last=False)
            return array

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._arrays.clear()

    def _find(self, key: Hashable) -> np.ndarray | None:
        array = self._arrays.get(key)
        if array is not None:
            self._arrays.move_to_end(key)
        return array

    def _bytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())


volumes = VolumeCache()
"""Of this process."""
