"""A self-contained HTML page that shows runs side by side."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convlora import __version__
from convlora.data.dataset import SegmentationDataset
from convlora.data.labels.colours import as_hex
from convlora.data.pixels.display import visible_rgb
from convlora.data.pixels.masks import LabelFormat
from convlora.evaluation import figures
from convlora.evaluation.results import RunResult
from convlora.evaluation.routing import chosen_scales
from convlora.evaluation.scoring import Scores
from convlora.files import write_text
from convlora.inference.drawing import overlay
from convlora.objectives.metrics import DEFINITIONS, confusion_matrix, foreground

_PICTURES = 6
_ROUTED_IMAGES = 16  # enough for the shares of each expert; more would only take time


@dataclass(frozen=True)
class _Cell:
    picture: str
    caption: str


def write_report(
    path: Path,
    results: Sequence[RunResult],
    dataset: SegmentationDataset,
    labels: LabelFormat,
    *,
    title: str = "Conv-LoRA report",
    baseline: RunResult | None = None,
) -> None:
    """Write the report whole or not at all.

    Args:
        path: The HTML file.
        results: Runs that were scored on `dataset`; the last one is the one the pictures are chosen by.
        dataset: The held-out images.
        labels: Of the masks.
        title: Of the page.
        baseline: The untouched model's scores, if they were measured.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("convlora", "evaluation"), autoescape=True)
    metric = results[-1].settings.get("metric", "iou")
    page = environment.get_template("report.html").render(
        title=title,
        version=__version__,
        date=datetime.date.today().isoformat(),
        columns=["image", "truth", "before tuning", *(result.name for result in results)],
        rows=[_row(dataset, index, results, labels) for index in _spread(results[-1])],
        table=_table([*([baseline] if baseline else []), *results]),
        legend=[(name, as_hex(labels.palette[i])) for i, name in enumerate(labels.classes) if i],
        overlapping=labels.multilabel,
        images=len(dataset),
        curves=figures.loss_curves({r.name: r.log for r in results}, metric) if any(r.log for r in results) else "",
        routing=[_routing(result, dataset) for result in results if result.has_experts],
        class_table=_class_table(results, labels),
        settings=[(r.name, _flat(r.settings)) for r in results if r.settings],
    )
    write_text(path, page.encode("utf-8", "backslashreplace").decode())  # file names need not be valid Unicode


def _spread(result: RunResult) -> list[int]:
    """Images from the worst to the best score, evenly spread, so that failures are seen too."""
    order = np.argsort([image.iou for image in result.scores.images], kind="stable")  # NaN, without valid pixels, last
    places = np.linspace(0, len(order) - 1, min(_PICTURES, len(order))).round().astype(int)
    return [int(order[place]) for place in places]


def _row(dataset: SegmentationDataset, index: int, results: Sequence[RunResult], labels: LabelFormat) -> dict[str, Any]:
    item = dataset[index]
    image, truth = item["image"], item["mask"]
    picture = visible_rgb(image, results[-1].predictor.processor.display_channels)
    drawn: dict[str, Any] = {"colours": labels.palette, "multilabel": labels.multilabel}
    cells = [
        _Cell(figures.data_uri(picture), ""),
        _Cell(figures.data_uri(overlay(picture, truth, labels.ignore_index, **drawn)), ""),
    ]

    def cell(prediction: np.ndarray) -> _Cell:
        matrix = confusion_matrix(
            prediction, truth, labels.num_classes, labels.ignore_index, multilabel=labels.multilabel
        )
        iou, dice = foreground(matrix)
        return _Cell(figures.data_uri(overlay(picture, prediction, **drawn)), f"IoU {iou:.3f} · Dice {dice:.3f}")

    with results[-1].predictor.model.disable_adapter():
        cells.append(cell(results[-1].predictor(image)))
    cells += [cell(result.predictor(image)) for result in results]
    return {"name": item["name"], "size": f"{image.shape[1]} × {image.shape[0]}", "cells": cells}


def _table(results: Sequence[RunResult]) -> dict[str, Any]:
    """One column a run, one row a score, with its definition."""
    rows = [
        ("trained parameters", [f"{result.trainable:,}" for result in results], ""),
        ("adapter file", [f"{r.adapter_bytes / 1e6:.2f} MB" if r.adapter_bytes else "–" for r in results], ""),
    ]
    for name in results[0].scores.summary:
        rows.append((name, [_score_text(result.scores, name) for result in results], DEFINITIONS[name]))
    return {"columns": [result.name for result in results], "rows": rows}


def _score_text(scores: Scores, name: str) -> str:
    text = f"{scores.summary[name]:.3f}"
    if name in scores.intervals:
        low, high = scores.intervals[name]
        text += f" [{low:.3f}, {high:.3f}]"
    return text


def _class_table(results: Sequence[RunResult], labels: LabelFormat) -> list[list[str]]:
    """IoU of every class for every run; empty for a binary task, where it is in the main table."""
    if labels.num_classes == 2:
        return []
    names = list(results[0].scores.classes)
    ious = [[result.scores.classes[name]["iou"] for result in results] for name in names]
    return [
        [name, *("absent" if iou is None else f"{iou:.3f}" for iou in row)]
        for name, row in zip(names, ious, strict=True)
    ]


def _routing(result: RunResult, dataset: SegmentationDataset) -> dict[str, str]:
    scales = result.predictor.model.active_peft_config.scales
    shown = _spread(result)[-1]
    indices = [shown, *(i for i in range(len(dataset)) if i != shown)][:_ROUTED_IMAGES]
    images = [dataset[index]["image"] for index in indices]
    choices = [chosen_scales(result.predictor, image) for image in images]
    return {
        "name": result.name,
        "image": dataset[shown]["name"],
        "picture": figures.data_uri(visible_rgb(images[0], result.predictor.processor.display_channels)),
        "maps": figures.routing_maps(choices[0], scales),
        "shares": figures.routing_shares(choices, scales),
        "count": str(len(images)),
    }


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{prefix}{key}"
        pairs += _flat(value, f"{name}.") if isinstance(value, dict) else [(name, str(value))]
    return pairs
