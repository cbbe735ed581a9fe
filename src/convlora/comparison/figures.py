"""Diagrams of a study, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convlora.comparison.statistics import Estimate
from convlora.comparison.study import Study
from convlora.comparison.summary import Line, Table
from convlora.evaluation.figures import as_svg, new_figure
from convlora.objectives.metrics import LOWER_IS_BETTER

# Okabe and Ito's colours without yellow, which is faint on white; after them, other dashes
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_DASHES = ("-", "--", ":")
_MARKERS = "osDv^<>"


def rate_curves(study: Study, lines: Sequence[Line]) -> str:
    """SVG: mean best validation score by learning rate, one line a method; a ring around the rate that was picked."""
    figure, (axis,) = new_figure(9.6, 3.6)
    rates = sorted(study.settings.learning_rates)
    for i, line in enumerate(lines):
        scores = [study.validation(line.cell, rate) for rate in rates]
        style = _style(i)
        axis.plot(rates, scores, label=line.cell.method, markersize=4, **style)
        if line.pick is not None:
            picked = [line.pick.learning_rate], [scores[rates.index(line.pick.learning_rate)]]
            axis.plot(*picked, marker="o", markersize=11, fillstyle="none", color=style["color"], linestyle="none")
    axis.set(xscale="log", xlabel="learning rate", title=f"validation {study.settings.metric} (ring: picked)")
    axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axis.minorticks_off()
    _legend(axis)
    return as_svg(figure)


def difference_bars(lines: Sequence[Line], reference: str, metric: str) -> str:
    """SVG: each method's difference to the reference with its 95 % interval; empty if there is none."""
    shown = [line for line in lines if line.difference is not None and line.difference.low is not None]
    if not shown:
        return ""
    figure, (axis,) = new_figure(9.6, 0.9 + 0.34 * len(shown))
    for place, line in enumerate(shown):
        found: Any = line.difference
        ends = np.array([_reach(found)]).T
        # the mean of the draws' middle may lie beside the mean by a little; an end must not point inwards
        axis.errorbar(found.mean, place, xerr=np.maximum(ends, 0), fmt="o", color=_COLOURS[0], capsize=3)
    axis.axvline(0, color="#5b6676", linewidth=0.8)
    axis.set_yticks(range(len(shown)), [line.cell.method for line in shown])
    better = "less" if metric in LOWER_IS_BETTER else "more"
    title = f"test {metric} ({better} is better), difference to {reference}, 95 % interval"
    axis.set(ylim=(len(shown) - 0.5, -0.5), title=title)
    return as_svg(figure)


def subset_curves(tables: Sequence[Table], metric: str) -> str:
    """SVG: test score by subset, one line a method, with its 95 % intervals; for tables that differ in that only.

    Empty if there is no score yet.
    """
    if all(line.score is None for _, lines in tables for line in lines):
        return ""
    figure, (axis,) = new_figure(9.6, 4.0)
    methods = [line.cell.method for line in tables[0][1]]
    for i, method in enumerate(methods):
        scores = [lines[i].score for _, lines in tables]
        there = [(place, score) for place, score in enumerate(scores) if score is not None]
        if not there:
            continue
        offset = 0.3 * ((i + 0.5) / len(methods) - 0.5)  # side by side, so that no interval hides another
        places = [place + offset for place, _ in there]
        means = [score.mean for _, score in there]
        ends = np.array([_reach(score) for _, score in there]).T
        axis.errorbar(places, means, yerr=np.maximum(ends, 0), label=method, markersize=4, capsize=2, **_style(i))
    axis.set_xticks(range(len(tables)), [group.subset for group, _ in tables])
    axis.set(title=f"test {metric}, 95 % interval")
    _legend(axis)
    return as_svg(figure)


def _reach(score: Estimate) -> tuple[float, float]:
    """How far the interval reaches below and above the mean; nothing is drawn for NaN, where there is none."""
    if score.low is None or score.high is None:
        return np.nan, np.nan
    return score.mean - score.low, score.high - score.mean


def _style(index: int) -> dict[str, Any]:
    turn, colour = divmod(index, len(_COLOURS))
    return {
        "color": _COLOURS[colour],
        "linestyle": _DASHES[turn % len(_DASHES)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linewidth": 1.3,
    }


def _legend(axis: Any) -> None:
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)  # beside, where no line is
