"""Names of the ranges of values that become black to white; light to import, because the settings check them."""

from __future__ import annotations

import math
from typing import NamedTuple


class Window(NamedTuple):
    """Values at and below `low` become 0, those at and above `high` 255, evenly in between."""

    low: float
    high: float


def _centred(centre: float, width: float) -> Window:
    return Window(centre - width / 2, centre + width / 2)


CT_WINDOWS = {
    "lung": _centred(-600, 1500),
    "mediastinum": _centred(50, 350),
    "soft-tissue": _centred(40, 400),
    "liver": _centred(30, 150),
    "brain": _centred(40, 80),
    "bone": _centred(400, 1800),
}
"""In Hounsfield units, by centre and width as radiologists commonly set them."""

RULES = ("auto", "percentile", "full", *CT_WINDOWS)


def given_window(rule: str) -> Window | None:
    """The window of a name or of "low,high"; None for the rules that look at the values."""
    if rule in RULES:
        return CT_WINDOWS.get(rule)
    low, high = (float(text) for text in rule.split(","))
    return Window(low, high)


def intensity_problem(rule: str) -> str | None:
    """What is wrong with a rule; None if it can be used."""
    allowed = f"one of {', '.join(RULES)}, or two numbers as in -160,240"
    try:
        window = given_window(rule)
    except (ValueError, TypeError):
        return f"intensity={rule!r} must be {allowed}"
    if window is None or (all(map(math.isfinite, window)) and window.low < window.high and abs(window.high) < 1e30):
        return None
    return f"intensity={rule!r} must be {allowed}, finite, the smaller number first"
