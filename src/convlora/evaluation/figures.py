"""Pictures of a report, as data URIs and inline SVG."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from convlora.evaluation.routing import LayerChoice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST_SIDE = 512  # pixels of a picture in the report; larger images are shown smaller
_RUN_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")


def data_uri(image: np.ndarray) -> str:
    """A uint8 (H, W, 3) image as a PNG inside a URL, at most 512 pixels on its longest side."""
    picture = Image.fromarray(image)
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def loss_curves(logs: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> str:
    """SVG: task loss by step, smoothed, and the validation score, one colour a run."""
    figure, (left, right) = new_figure(9.6, 3.2, columns=2)
    for i, (name, log) in enumerate(logs.items()):
        colour = _RUN_COLOURS[i % len(_RUN_COLOURS)]
        steps, losses = _series(log, "task_loss")
        left.plot(steps, losses, color=colour, alpha=0.2, linewidth=0.8)
        left.plot(steps, _smooth(losses), color=colour, label=name)
        right.plot(*_series(log, f"eval_{metric}"), color=colour, marker="o", markersize=3, label=name)
    left.set(title="task loss (bold: running mean)", xlabel="step", ylim=(0, None))
    right.set(title=f"validation {metric}", xlabel="step")
    right.legend(frameon=False)
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
    return as_svg(figure)


def routing_maps(choices: Sequence[LayerChoice], scales: Sequence[int]) -> str:
    """SVG: the scale that each window of one image was sent to, one panel a layer."""
    columns = min(6, len(choices))
    rows = -(-len(choices) // columns)
    figure, axes = new_figure(9.6, 1.75 * rows + 0.5, rows=rows, columns=columns)
    colours = scale_colours(scales)
    index_of = {scale: i for i, scale in enumerate(scales)}
    for axis, choice, label in zip(axes, choices, layer_labels(choices), strict=False):
        axis.imshow(np.vectorize(index_of.get)(choice.scales), cmap=colours, vmin=-0.5, vmax=len(scales) - 0.5)
        kind = "global" if choice.scales.size == 1 else f"{choice.scales.shape[0]}×{choice.scales.shape[1]} windows"
        axis.set_title(f"{label} · {kind}", fontsize=8)
        if choice.scales.shape[0] <= 8:  # beyond that the numbers would overlap
            for (row, column), scale in np.ndenumerate(choice.scales):
                axis.text(column, row, f"×{scale}", ha="center", va="center", fontsize=8, color="black")
    for axis in axes:
        axis.set_axis_off()
    return as_svg(figure)


def routing_shares(choices: Sequence[Sequence[LayerChoice]], scales: Sequence[int]) -> str:
    """SVG: share of the windows of all images that each scale got, one bar a layer."""
    figure, (axis,) = new_figure(9.6, 3.0)
    layers = range(len(choices[0]))
    bottom = np.zeros(len(choices[0]))
    colours = scale_colours(scales)
    for i, scale in enumerate(scales):
        share = np.array([np.mean([(image[layer].scales == scale).mean() for image in choices]) for layer in layers])
        axis.bar(layers, share, bottom=bottom, color=colours(i), label=f"×{scale}", edgecolor="white", linewidth=0.5)
        bottom += share
    names = [label.removeprefix("block ") for label in layer_labels(choices[0])]
    axis.set(xlabel="encoder block", ylabel="share of windows", ylim=(0, 1))
    axis.set_xticks(list(layers), names, rotation=0 if len(max(names, key=len)) < 4 else 90)
    axis.legend(title="scale", ncols=1, bbox_to_anchor=(1.01, 1), loc="upper left", frameon=False, fontsize=8)
    return as_svg(figure)


def layer_labels(choices: Sequence[LayerChoice]) -> list[str]:
    """Names of the layers; the block is enough if each has one."""
    several = len({choice.layer for choice in choices}) < len(choices)
    return [f"block {choice.layer}" + (f" {choice.module}" if several else "") for choice in choices]


def new_figure(width: float, height: float, *, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Any]]:
    """A figure of so many inches, and its panels row by row; 9.6 inches are the width of a page."""
    from matplotlib.figure import Figure  # 0.5 s to import

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(np.ravel(figure.subplots(rows, columns, squeeze=False)))


def as_svg(figure: Figure) -> str:
    """An SVG element that is the same for the same figure, with letters as outlines."""
    import matplotlib

    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "convlora", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def scale_colours(scales: Sequence[int]) -> Any:
    """Light to dark with the scale, light enough for black figures on top."""
    import matplotlib

    return matplotlib.colors.ListedColormap(matplotlib.colormaps["YlGnBu"](np.linspace(0.05, 0.65, len(scales))))


def _series(log: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    entries = [entry for entry in log if key in entry]
    return [entry["step"] for entry in entries], [entry[key] for entry in entries]


def _smooth(values: Sequence[float]) -> np.ndarray:
    """Mean of each value and up to nine before it."""
    sums = np.cumsum([0.0, *values])
    index = np.arange(1, len(sums))
    first = np.maximum(index - 10, 0)
    return (sums[index] - sums[first]) / (index - first)
