"""Values of any range become the 8 bits that a model sees."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence

import numpy as np

from convlora.data.scientific.stacks import Stack
from convlora.data.scientific.windows import CT_WINDOWS, Window, given_window
from convlora.data.settings import ImageLimits

PERCENTILES = (0.5, 99.5)
_MOST_REMEMBERED = 4096
_PIECE = 2**16
_remembered: OrderedDict[Hashable, tuple[Window, ...] | None] = OrderedDict()
_lock = threading.Lock()


def stack_windows(stack: Stack, rule: str, limits: ImageLimits) -> tuple[Window, ...] | None:
    """The window of each channel of a stack; None if its 8-bit values stay as they are.

    What looks at the values does so once in a process: at all of them, or at an even sample of a large stack. So all
    slices of a volume and all windows of a raster are seen alike.

    Raises:
        ImageError: The sample cannot be read.
    """
    if (window := given_window(rule)) is not None:
        return (window,) * stack.channels
    key = (stack, rule, _version(stack))
    with _lock:
        if key in _remembered:
            _remembered.move_to_end(key)
            return _remembered[key]
    windows = _looked_at(stack, rule, limits)
    with _lock:
        _remembered[key] = windows
        if len(_remembered) > _MOST_REMEMBERED:
            _remembered.popitem(last=False)
    return windows


def resolved(stack: Stack, rule: str, limits: ImageLimits) -> str:
    """What "auto" is for a stack: soft-tissue, percentile, or auto for 8-bit values; other rules stay as they are."""
    if rule != "auto" or stack.dtype in ("uint8", "bool"):
        return rule
    return "soft-tissue" if stack.in_hounsfield_units(limits) else "percentile"


def looks_like_ct(sample: np.ndarray) -> bool:
    """Whether values of a volume are Hounsfield units: whole or nearly, from air near -1000 or fat near -100 up.

    MR and PET have few negative values, and normalised volumes none below -100.

    Args:
        sample: (n, 1) values.
    """
    values = sample[np.isfinite(sample)]
    if not values.size:
        return False
    low, high = np.percentile(values, (5, 99.9))
    return bool(-4100 <= low <= -90 and 30 <= high <= 32767 and values.min() >= -33000)


def as_bytes(values: np.ndarray, windows: Sequence[Window] | None) -> np.ndarray:
    """Values (H, W, C) as uint8 of that shape, rounded; NaN becomes 0. Without windows they are uint8 or bool."""
    if windows is None:
        return values * np.uint8(255) if values.dtype == bool else values
    if len(windows) == 1:
        return _through(values, windows[0])
    result = np.empty(values.shape, dtype=np.uint8)
    for channel, window in enumerate(windows):
        result[..., channel] = _through(values[..., channel], window)
    return result


def _through(values: np.ndarray, window: Window) -> np.ndarray:
    """Values of any shape as uint8, in pieces that stay in the processor's cache."""
    flat = values.reshape(-1)
    result = np.empty(flat.shape, dtype=np.uint8)
    table = None
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        flat = flat.view(f"u{values.dtype.itemsize}")
        table = _table(values.dtype.str, window)
    for start in range(0, flat.size, _PIECE):
        piece, target = flat[start : start + _PIECE], result[start : start + _PIECE]
        if table is not None:
            np.take(table, piece, out=target, mode="clip")
        else:
            target[:] = _scaled(piece, window)
    return result.reshape(values.shape)


@functools.lru_cache(maxsize=64)
def _table(dtype: str, window: Window) -> np.ndarray:
    """What each value of a type of at most 16 bits becomes, by the number that its bits are without a sign."""
    size = np.dtype(dtype).itemsize
    every = np.arange(2 ** (8 * size)).astype(f"u{size}").view(np.dtype(dtype).newbyteorder("="))
    return _scaled(every, window)


def _scaled(values: np.ndarray, window: Window) -> np.ndarray:
    scaled: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = values.astype(np.float64)
    scaled -= window.low
    scaled *= 255 / (window.high - window.low)
    np.fmax(scaled, 0, out=scaled)  # which also makes NaN 0
    np.fmin(scaled, 255, out=scaled)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def _looked_at(stack: Stack, rule: str, limits: ImageLimits) -> tuple[Window, ...] | None:
    found = resolved(stack, rule, limits)
    if found in CT_WINDOWS:
        return (CT_WINDOWS[found],) * stack.channels
    if found == "auto" or (found == "full" and np.dtype(stack.dtype).kind in "biu"):
        return _whole_range(stack)
    sample = stack.sample(limits)
    low_high = (0, 100) if found == "full" else PERCENTILES
    return tuple(_percentiles(sample[:, channel], low_high) for channel in range(stack.channels))


def _whole_range(stack: Stack) -> tuple[Window, ...] | None:
    """All values that the type can hold."""
    if stack.dtype == "bool" or (stack.dtype == "uint8" and stack.bits == 8):
        return None
    low = -(2 ** (stack.bits - 1)) if np.dtype(stack.dtype).kind == "i" else 0
    return (Window(low, low + 2**stack.bits - 1),) * stack.channels


def _percentiles(values: np.ndarray, which: tuple[float, float]) -> Window:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        return Window(0, 1)
    low, high = (float(value) for value in np.percentile(finite.astype(np.float64), which))
    if not high > low:  # constant but for less than a percent: by its ends, and if there are none, black
        low, high = float(finite.min()), float(finite.max())
    return Window(low, high) if high > low else Window(low, low + max(1, abs(low)))


def _version(stack: Stack) -> Hashable:
    """Changes if the file does."""
    try:
        status = stack.path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
