"""Pictures of an analysis, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from convlora.analysis.probe import ProbeScore
from convlora.analysis.usage import UsageHistory
from convlora.evaluation.figures import as_svg, layer_labels, new_figure
from convlora.evaluation.routing import LayerChoice

_WIDTH = 9.6  # inches
_LONGEST_SIDE = 384  # pixels of an image below the windows, which are drawn as lines
_BEFORE, _AFTER = "#56b4e9", "#d55e00"


def experts_over_image(
    image: np.ndarray,
    choices: Sequence[LayerChoice],
    edges: Sequence[tuple[np.ndarray, np.ndarray]],
    scales: Sequence[int],
) -> str:
    """SVG: the image once a layer, each window tinted and numbered with the scale of its expert.

    Args:
        image: uint8 (H, W, 3).
        choices: Of the layers, with the windows that see the image.
        edges: Rows and columns of each layer's windows, in pixels of the image.
        scales: Of all experts.
    """
    height, width = image.shape[:2]
    columns = min(3, len(choices))
    rows = -(-len(choices) // columns)
    panel = _WIDTH / columns
    figure, axes = new_figure(
        _WIDTH, rows * (min(panel * height / width, 1.2 * panel) + 0.3) + 0.4, rows=rows, columns=columns
    )
    colours = _expert_colours(len(scales))
    # lighter, because the colours of dark images could not be told apart
    thumbnail = Image.fromarray(image).convert("L").point(lambda value: 90 + value * 165 // 255)
    thumbnail.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    for axis in axes:
        axis.set_axis_off()
    for axis, choice, (top, left), label in zip(axes, choices, edges, layer_labels(choices), strict=False):
        axis.imshow(thumbnail, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="none")
        index = np.searchsorted(scales, choice.scales)
        axis.pcolormesh(
            left, top, index, cmap=colours, vmin=-0.5, vmax=len(scales) - 0.5, alpha=0.5, edgecolors="white"
        )
        axis.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        shown = (
            "whole image" if choice.scales.size == 1 else f"{choice.scales.shape[0]}×{choice.scales.shape[1]} windows"
        )
        axis.set_title(f"{label} · {shown}", fontsize=9)
        _number_windows(axis, choice.scales, top, left)
    _expert_legend(figure, colours, scales)
    return as_svg(figure)


def _number_windows(axis: Any, scales: np.ndarray, top: np.ndarray, left: np.ndarray) -> None:
    from matplotlib import patheffects

    halo = [patheffects.withStroke(linewidth=2, foreground="white")]
    wide = 0.05 * max(top[-1], left[-1])  # a narrower window has no room for its number
    for (i, j), scale in np.ndenumerate(scales):
        if min(top[i + 1] - top[i], left[j + 1] - left[j]) >= wide:
            place = (left[j] + left[j + 1]) / 2, (top[i] + top[i + 1]) / 2
            axis.text(*place, f"×{scale}", ha="center", va="center", fontsize=9, path_effects=halo)


def _expert_legend(figure: Any, colours: Any, scales: Sequence[int]) -> None:
    from matplotlib.patches import Patch

    # mixed with grey, as the windows are with the image
    patches = [
        Patch(facecolor=np.mean([colours(i)[:3], 3 * [0.5]], axis=0), label=f"×{s}") for i, s in enumerate(scales)
    ]
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=min(len(scales), 16),
        frameon=False,
        title="scale of the expert",
    )


def _expert_colours(count: int) -> Any:
    """From dark blue over green to yellow with the scale."""
    import matplotlib

    return matplotlib.colors.ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.1, 1.0, count)))


def usage_over_training(history: UsageHistory, scales: Sequence[int]) -> str:
    """SVG: one heat map a layer, experts from the bottom to the top, training steps to the right."""
    columns = min(4, len(history.layers))
    rows = -(-len(history.layers) // columns)
    figure, axes = new_figure(_WIDTH, 1.6 * rows + 0.4, rows=rows, columns=columns)
    steps = np.append(0, history.steps)
    experts = np.arange(len(scales) + 1) - 0.5
    for axis in axes[len(history.layers) :]:
        axis.set_axis_off()
    for i, (axis, name) in enumerate(zip(axes, _block_names(history.layers), strict=False)):
        mesh = axis.pcolormesh(steps, experts, history.shares[:, i].T, cmap="magma_r", vmin=0, vmax=1)
        mesh.set_rasterized(True)
        axis.set_title(name, fontsize=8)
        axis.set_yticks(range(len(scales)), [f"×{scale}" for scale in scales], fontsize=6)
        axis.tick_params(axis="x", labelsize=7)
        axis.xaxis.get_major_locator().set_params(integer=True, nbins=4)
    figure.supxlabel("training step", fontsize=9)
    figure.colorbar(mesh, ax=axes, shrink=min(1.0, 2 / rows), label="share")
    return as_svg(figure)


def _block_names(layers: Sequence[str]) -> list[str]:
    """ "layers.3.attn.qkv" as "block 3 attn.qkv", or as "block 3" if only this layer of the blocks is adapted."""
    parts = [name.removeprefix("layers.").partition(".") for name in layers]
    several = len({inside for _, _, inside in parts}) > 1
    return [f"block {block}" + (f" {inside}" if several else "") for block, _, inside in parts]


def attention_by_block(before: Mapping[int, np.ndarray], after: Mapping[int, np.ndarray]) -> str:
    """SVG: mean attention distance of every head, before and after, block by block; lines through their means."""
    figure, (axis,) = new_figure(_WIDTH, 3.6)
    for distances, colour, label, shift in ((before, _BEFORE, "before tuning", -0.12), (after, _AFTER, "after", 0.12)):
        blocks = sorted(distances)
        for block in blocks:
            heads = distances[block]
            axis.scatter(np.full(len(heads), block + shift), heads, s=14, color=colour, alpha=0.75, linewidths=0)
        means = [distances[block].mean() for block in blocks]
        axis.plot(np.array(blocks) + shift, means, color=colour, linewidth=1, label=label)
    axis.set(xlabel="encoder block", ylabel="mean attention distance [pixels]", ylim=(0, None))
    axis.set_xticks(sorted(before))
    axis.legend(frameon=False)
    return as_svg(figure)


def probes_by_depth(before: Mapping[str, ProbeScore], after: Mapping[str, ProbeScore]) -> str:
    """SVG: scores of the linear probes by depth, before and after tuning."""
    figure, axes = new_figure(_WIDTH, 3.2, columns=2)
    names = list(before)
    for axis, score, title in zip(axes, ("miou", "accuracy"), ("mean IoU", "accuracy"), strict=True):
        for scores, colour, label in ((before, _BEFORE, "before tuning"), (after, _AFTER, "after")):
            values = [getattr(scores[name], score) for name in names]
            axis.plot(names, values, color=colour, marker="o", markersize=4, label=label)
        axis.set_title(f"linear probe: {title} of the test images' tokens", fontsize=10)
        axis.tick_params(axis="x", rotation=30)
    axes[0].legend(frameon=False)
    return as_svg(figure)
