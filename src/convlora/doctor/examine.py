"""Measure what can be measured without harm, predict the rest, check the prediction once, and choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convlora.doctor.isolation import MemoryRefusedError, isolated
from convlora.doctor.prediction import METHODS, Measurement, Setting, all_settings, choose, fit, to_check
from convlora.doctor.settings import DoctorSettings
from convlora.errors import SettingsError

if TYPE_CHECKING:
    from convlora.doctor.steps import Facts

SHARE = 0.8
"""Of the available memory that a setting may need."""
LONGEST_STEP = 30.0
"""Seconds; longer steps are predicted only."""
_SECOND_BATCH = 4


@dataclass(frozen=True)
class Findings:
    """The result.

    Attributes:
        facts: About machine and model.
        sizes: Image sizes in pixels, ascending: half the model's own, and its own.
        budget: Bytes that a setting may need.
        settings: Memory and time of every setting of every method that could be tried.
        too_large: Bytes at least of the methods that could not be tried.
        check: What was predicted for a setting, and then measured; None if its step would take too long.
        chosen: The largest setting that fits; None if none does.
    """

    facts: Facts
    sizes: tuple[int, ...]
    budget: float
    settings: list[Setting]
    too_large: dict[str, float]
    check: tuple[Setting, Measurement] | None
    chosen: Setting | None


@dataclass
class _Calibration:
    """Measurements so far, and the rules for the next one."""

    settings: DoctorSettings
    facts: Facts
    available: float
    tried: Callable[[], None]
    points: list[Measurement] = field(default_factory=list)
    too_large: dict[str, float] = field(default_factory=dict)

    def try_method(self, method: str, sizes: tuple[int, ...]) -> None:
        """Two batches at the smaller size, one at the larger; each only if the one before says that it fits."""
        small = sizes[0]
        first = self.measure(method, small, 1, self._at_least(method), 0.0)
        if first is None:
            return
        # before there are two batches, all that a step added counts as the image's: rather too much
        alone = fit([first])
        at = _SECOND_BATCH
        self.measure(method, small, at, alone.memory.at(at), alone.seconds.at(at))
        lines = fit([point for point in self.points if point.method == method])
        for size in sizes[1:]:
            larger = fit([], lines, (size / small) ** 2)
            self.measure(method, size, 1, larger.memory.at(1), larger.seconds.at(1))

    def measure(self, method: str, size: int, batch: int, memory: float, seconds: float) -> Measurement | None:
        """Measure a setting that is expected to need so much; None if that is, or turns out, too much."""
        given = self.settings
        self.tried()
        if memory > self.available:
            self.too_large.setdefault(method, memory)
            return None
        if seconds > LONGEST_STEP:
            return None
        try:
            point = isolated("measure", given.model, given.precision, given.device, method, size, batch, given.channels)
        except MemoryRefusedError:
            self.too_large.setdefault(method, max(memory, self.available))
            return None
        self.points.append(point)
        return point

    def _at_least(self, method: str) -> float:
        """Bytes below which no step is possible; "full" has copy, gradient and two moments of the encoder in fp32."""
        return self.facts.loaded + (16 * self.facts.encoder if method == "full" else 0)


def examine(
    settings: DoctorSettings,
    available: float,
    *,
    reserved: float = 0.0,
    most: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
    """Calibrate: at most 14 short processes.

    Args:
        settings: Model, precision and device.
        available: Bytes of the machine's memory that are free; a GPU's are asked for.
        reserved: Bytes of it that training needs for other things, such as decoded images.
        most: Largest batch that makes sense.
        progress: Called with the number of processes done and, at most, of all.

    Raises:
        WeightsError: There is no such model.
        SettingsError: It cannot even be loaded into the memory that is free.
    """
    done, total = 0, 2 + 3 * len(METHODS)

    def tried() -> None:
        nonlocal done
        progress(done, total)
        done += 1

    tried()
    try:
        facts: Facts = isolated("facts", settings.model, settings.precision, settings.device)
    except MemoryRefusedError as error:
        raise SettingsError(
            f"model={settings.model!r} alone does not fit into the free memory ({error}). Close other programs, or "
            "give a smaller model."
        ) from None
    free = float(facts.gpu_memory[1]) if facts.device == "cuda" else available - reserved
    half = max(facts.patch, facts.size // 2 // facts.patch * facts.patch)
    sizes = tuple(sorted({half, facts.size}))
    calibration = _Calibration(settings, facts, free, tried)
    for method in METHODS:
        calibration.try_method(method, sizes)
    budget = SHARE * free
    predicted = all_settings(calibration.points, sizes)
    chosen = choose(predicted, budget, most)
    check = None
    if chosen is not None and (setting := to_check(predicted, chosen, LONGEST_STEP)):
        point = calibration.measure(setting.method, setting.size, setting.batch, setting.peak, setting.seconds)
        check = (setting, point) if point else None
    progress(total, total)
    found = all_settings(calibration.points, sizes)
    untried = {m: need for m, need in calibration.too_large.items() if not any(s.method == m for s in found)}
    return Findings(facts, sizes, budget, found, untried, check, choose(found, budget, most))
