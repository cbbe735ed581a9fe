"""Scores during training, at the images' own sizes."""

from __future__ import annotations

import numpy as np
from accelerate.utils import gather_object
from torch import distributed, nn

from convlora.data.dataset import SegmentationDataset
from convlora.data.masks import LabelFormat
from convlora.objectives.metrics import confusion_matrix, summarize
from convlora.sam.processing import SamSegmentationImageProcessor, classes
from convlora.sam.segmenting import segment


def validation_scores(
    model: nn.Module,
    processor: SamSegmentationImageProcessor,
    dataset: SegmentationDataset,
    labels: LabelFormat,
    *,
    batch_size: int,
) -> dict[str, float]:
    """Scores of `convlora.objectives.metrics` over a data set; processes share the work."""
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    mine = range(rank, len(dataset), world)
    confusions: list[np.ndarray] = []
    for start in range(0, len(mine), batch_size):
        items = [dataset[index] for index in mine[start : start + batch_size]]
        for item, logits in zip(items, segment(model, processor, [item["image"] for item in items]), strict=True):
            prediction = classes(logits).numpy()
            confusions.append(confusion_matrix(prediction, item["mask"], labels.num_classes, labels.ignore_index))
    return summarize(gather_object(confusions))
