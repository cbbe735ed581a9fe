"""Where the windows of an encoder block lie on an image."""

from __future__ import annotations

import numpy as np

from convlora.evaluation.routing import LayerChoice
from convlora.sam.processing import SamSegmentationImageProcessor


def window_edges(
    processor: SamSegmentationImageProcessor, size: tuple[int, int], window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Edges of windows in pixels of the image, undoing the resize and leaving the padding out.

    Args:
        processor: Places the image into the model's S × S input.
        size: (height, width) of the image.
        window: Side of a window in pixels of the input; S for a single one.

    Returns:
        Rows and columns; window (i, j) covers rows[i]…rows[i + 1] × columns[j]…columns[j + 1], the last one of a row
        or a column as far as there is image.
    """
    edges = []
    for side, content in zip(size, processor.content_size(*size), strict=True):
        edges.append(np.append(np.arange(0, content, window), content) * side / content)
    return edges[0], edges[1]


def visible(choice: LayerChoice, edges: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The (rows, columns) scales of those windows of a layer that see some of the image."""
    rows, columns = edges
    return choice.scales[: len(rows) - 1, : len(columns) - 1]
