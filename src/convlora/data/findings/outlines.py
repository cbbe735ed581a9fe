"""Masks that do not lie on what the image shows: shifted, or of another image."""

from __future__ import annotations

from statistics import median

import numpy as np

from convlora.data.findings.edges import REACH, EdgeFit
from convlora.data.findings.finding import Finding, Survey
from convlora.data.samples import first_few

_FOLLOWS = 0.8
"""Gain (see `EdgeFit`) from which on outlines clearly lie on edges."""
_LOST = 0.1  # gain of outlines that lie anywhere
_BETTER = 1.3  # times the gain of the mask where it is
_FEWEST = 4  # masks
_MOST = 0.75  # of the masks
_FEWEST_TESTED = 10
_BY_CHANCE = 2.0  # standard errors; masks of other images of the set stay below it, right ones are at 4 to 37


def shifted_masks(survey: Survey) -> list[Finding]:
    """All masks moved by the same way, or single ones unlike the others."""
    fits = _fits(survey)
    if len(fits) < _FEWEST:
        return []
    steps = [fit.step for fit in fits.values()]
    step = max(set(steps), key=steps.count)
    gains = np.stack([fit.gains for fit in fits.values() if fit.step == step])
    together = EdgeFit(gains.mean(0), step)
    row, column = (side // step for side in together.best)
    moved = gains[:, REACH + row, REACH + column]
    agree = float((moved > gains[:, REACH, REACH]).mean())
    top = float(together.gains.max())
    if max(abs(row), abs(column)) >= 2 and top > _FOLLOWS and top > _BETTER * together.fit and agree >= _MOST:
        where = _way(*together.best)
        text = f"the masks' outlines lie {where} of the edges in the images ({agree:.0%} of the masks agree)"
        remedy = (
            "Move the masks back by so much, or export them again; look for a crop or a resize that only one side had."
        )
        return [Finding("all-shifted", "harmful", text, remedy)]
    if median(fit.fit for fit in fits.values()) < _FOLLOWS:
        return []
    single = [
        name
        for name, fit in fits.items()
        if max(map(abs, fit.best)) >= 3 * fit.step
        and float(fit.gains.max()) > max(_FOLLOWS, 2 * _BETTER * max(fit.fit, 0.0))
    ]
    if not single or len(single) > 0.5 * len(fits):
        return []
    listed = first_few([f"{name} ({_way(*fits[name].best)})" for name in single])
    text = f"{len(single)} of {len(fits)} masks seem to be shifted against their images: {listed}"
    return [
        Finding("shifted", "hint", text, "Look at their overlays, and draw or export these masks again.", tuple(single))
    ]


def unrelated_masks(survey: Survey) -> list[Finding]:
    """Outlines that follow edges no better where they are than elsewhere, over all masks together."""
    gains = [fit.gains for fit in _fits(survey).values()]
    if len(gains) < _FEWEST_TESTED:
        return []
    ahead = np.array([own[REACH, REACH] - own.mean() for own in gains])
    deviations = float(ahead.mean() / max(ahead.std(ddof=1) / np.sqrt(len(ahead)), 1e-9))  # Student's t
    if deviations > _BY_CHANCE:
        return []
    text = f"the outlines of {len(gains)} masks follow the edges of their images no better than by chance"
    remedy = "Look at their overlays: masks may be paired with the wrong images, or turned."
    return [Finding("unrelated", "notable", text, remedy, tuple(_fits(survey)))]


def stray_masks(survey: Survey) -> list[Finding]:
    """Masks whose outlines have nothing to do with their image, where the others' do."""
    fits = _fits(survey)
    if len(fits) < _FEWEST or median(fit.fit for fit in fits.values()) < _FOLLOWS:
        return []
    stray = sorted(
        (n for n, f in fits.items() if f.fit < _LOST and f.gains.max() < _FOLLOWS), key=lambda n: fits[n].fit
    )
    if not stray:
        return []
    count = f"{len(stray)} of {len(fits)} masks"
    text = f"the outlines of {count} follow no edges of their images, unlike the others: {first_few(stray)}"
    remedy = "Look at their overlays: the mask may belong to another image, or be drawn roughly."
    return [Finding("stray", "hint", text, remedy, tuple(stray))]


def _way(down: int, right: int) -> str:
    """Where outlines lie, seen from the edges, to which they would have to move down and right."""
    parts = [f"{abs(down)} pixels {'above' if down > 0 else 'below'}"] if down else []
    parts += [f"{abs(right)} pixels {'to the left' if right > 0 else 'to the right'}"] if right else []
    return " and ".join(parts)


def _fits(survey: Survey) -> dict[str, EdgeFit]:
    return {
        name: item.details.edges
        for name, item in survey.measured.items()
        if item.details is not None and item.details.edges is not None
    }
