"""The classes of a run, read without loading the model or torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from convlora.data.labels.bits import IGNORED
from convlora.data.labels.format import LabelFormat
from convlora.errors import SettingsError, WeightsError

_MOST_BYTES = 2**24
_MANIFEST = "manifest.json"


def read_classes(folder: Path) -> tuple[LabelFormat, int | None]:
    """The classes of a run folder or its adapter folder, with their colours.

    Returns:
        What masks mean that `convlora predict` wrote: class ids or, if the classes may overlap, bit fields. And how
        many raw channels the model takes; None if it takes pictures.

    Raises:
        WeightsError: It is none, or its manifest is damaged.
    """
    inner = folder / "adapter" / _MANIFEST
    path = inner if inner.is_file() else folder / _MANIFEST
    if not path.is_file():
        raise WeightsError(
            f"{folder} is not a finished run: there is no adapter/{_MANIFEST}. Give a run folder or the adapter folder "
            "in it, or name the classes with --classes."
        )
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("too large")
        metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"]
        channels = metadata["processor"].get("channels")
        return _labels(metadata), None if channels is None else int(channels)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SettingsError) as error:
        raise WeightsError(f"{path} does not name classes ({error!r}). Copy the adapter folder again.") from error


def _labels(metadata: dict[str, Any]) -> LabelFormat:
    names = {int(number): str(name) for number, name in metadata["id2label"].items()}
    classes = tuple(names[class_id] for class_id in range(len(names)))
    colours = metadata.get("colours")
    chosen = tuple((int(red), int(green), int(blue)) for red, green, blue in colours) if colours else None
    if metadata["processor"].get("multilabel"):
        return LabelFormat(classes, "bits", IGNORED, colours=chosen, multilabel=True)
    return LabelFormat(classes, "ids", 255, colours=chosen)
