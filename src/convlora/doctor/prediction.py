"""From a few measured steps to all settings, and the one to take. Plain arithmetic.

Model: for one method and image size, the peak of the memory and the time of a step are `fixed + slope * batch`. Of a
size that was measured at one batch only, the fixed part is that of the other size, because weights, optimiser and
libraries are the same; of a size that was not measured at all, the slope grows with the pixels, because everything in
the encoder but its global attention's arithmetic does, and that takes no memory of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

METHODS = ("decoder", "lora", "conv-lora", "full")
BATCHES = (1, 2, 4, 8)
PREFERRED = ("conv-lora", "lora", "decoder")
"""Methods that are recommended, the first one that fits; tuning the whole encoder is left to who asks for it."""


@dataclass(frozen=True)
class Measurement:
    """Training steps that were tried."""

    method: str
    size: int
    """Side of the input in pixels."""
    batch: int
    loaded: float
    """Bytes in use before the first step."""
    peak: float
    """Bytes in use at most, during the steps."""
    seconds: float
    """Of a step."""


@dataclass(frozen=True)
class Setting:
    """What a setting needs, measured or predicted."""

    method: str
    size: int
    """Side of the input in pixels."""
    batch: int
    peak: float
    """Bytes."""
    seconds: float
    """Of a step."""
    measured: bool


@dataclass(frozen=True)
class Line:
    """fixed + slope * batch."""

    fixed: float
    slope: float

    def at(self, batch: int) -> float:
        """The value for a batch of so many images."""
        return self.fixed + self.slope * batch


@dataclass(frozen=True)
class Fit:
    """Memory in bytes and time in seconds of a step, by batch."""

    memory: Line
    seconds: Line


def fit(points: Sequence[Measurement], base: Fit | None = None, growth: float = 1.0) -> Fit:
    """The lines of one method and size.

    Args:
        points: Its measurements. With two batches or more, the lines go through the smallest and the largest one.
        base: The fit of another size of the method, for what these leave open.
        growth: Pixels of this size, divided by those of the base.

    Raises:
        ValueError: There are neither points nor a base.
    """
    if not points:
        if base is None:
            raise ValueError("neither measurements nor another size to predict from")
        memory, seconds = base.memory, base.seconds
        return Fit(Line(memory.fixed, memory.slope * growth), Line(seconds.fixed, seconds.slope * growth))
    low, high = min(points, key=lambda p: p.batch), max(points, key=lambda p: p.batch)
    if high.batch > low.batch:
        return Fit(
            _through(low.batch, low.peak, high.batch, high.peak),
            _through(low.batch, low.seconds, high.batch, high.seconds),
        )
    fixed_memory, fixed_seconds = (base.memory.fixed, base.seconds.fixed) if base else (low.loaded, 0.0)
    return Fit(_from_fixed(fixed_memory, low.batch, low.peak), _from_fixed(fixed_seconds, low.batch, low.seconds))


def _through(batch: int, value: float, other_batch: int, other_value: float) -> Line:
    """A line that neither falls nor starts below 0, as a disturbed clock would have it."""
    slope = max(0.0, (other_value - value) / (other_batch - batch))
    fixed = value - slope * batch
    return Line(fixed, slope) if fixed >= 0 else Line(0.0, value / batch)


def _from_fixed(fixed: float, batch: int, value: float) -> Line:
    fixed = min(fixed, value)
    return Line(fixed, (value - fixed) / batch)


def all_settings(measurements: Iterable[Measurement], sizes: Sequence[int]) -> list[Setting]:
    """Every method that was measured × size × batch; a measured value wins over a predicted one.

    Args:
        measurements: Those of the smallest size include every method.
        sizes: Ascending.
    """
    by_place: dict[tuple[str, int], list[Measurement]] = {}
    for measurement in measurements:
        by_place.setdefault((measurement.method, measurement.size), []).append(measurement)
    settings = []
    for method in METHODS:
        base: Fit | None = None
        for size in sizes:
            points = by_place.get((method, size), [])
            if base is None and not points:
                continue
            lines = fit(points, base, (size / sizes[0]) ** 2)
            base = base or lines
            for batch in BATCHES:
                seen = next((p for p in points if p.batch == batch), None)
                peak = seen.peak if seen else lines.memory.at(batch)
                seconds = seen.seconds if seen else lines.seconds.at(batch)
                settings.append(Setting(method, size, batch, peak, seconds, seen is not None))
    return settings


def choose(settings: Iterable[Setting], budget: float, most: int = max(BATCHES)) -> Setting | None:
    """The largest setting that needs at most `budget` bytes: by method as preferred, then size, then batch.

    Args:
        settings: Of `all_settings`.
        budget: Bytes.
        most: Largest batch that makes sense, such as the number of training images.
    """
    fitting = [
        s for s in settings if s.method in PREFERRED and s.peak <= budget and (s.batch <= most or s.batch == BATCHES[0])
    ]
    return max(fitting, key=lambda s: (-PREFERRED.index(s.method), s.size, s.batch), default=None)


def to_check(settings: Iterable[Setting], chosen: Setting, seconds: float) -> Setting | None:
    """The predicted setting nearest below the chosen one whose step is short enough to try; None if there is none."""
    near = [
        s
        for s in settings
        if (s.method, s.size) == (chosen.method, chosen.size)
        and s.batch <= chosen.batch
        and s.seconds <= seconds
        and not s.measured
    ]
    return max(near, key=lambda s: s.batch, default=None)
