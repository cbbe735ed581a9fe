"""Scores during training, at the images' own sizes."""

from __future__ import annotations

import math

import numpy as np
from accelerate.utils import gather_object
from torch import distributed, nn

from convlora.data.dataset import SegmentationDataset
from convlora.data.pixels.masks import LabelFormat
from convlora.objectives.metrics import confusion_matrix, summarize
from convlora.objectives.saliency import s_measure
from convlora.sam.processing import SamSegmentationImageProcessor, class_probabilities
from convlora.sam.segmenting import segment


def validation_scores(
    model: nn.Module,
    processor: SamSegmentationImageProcessor,
    dataset: SegmentationDataset,
    labels: LabelFormat,
    *,
    batch_size: int,
    with_s_measure: bool = False,
) -> dict[str, float]:
    """Scores of a data set, by the names of `convlora.objectives.metrics.DEFINITIONS`; processes share the work.

    Args:
        model: The segmenter, in evaluation mode.
        processor: Of the model.
        dataset: Images and masks.
        labels: Of the masks.
        batch_size: Images that are segmented at once.
        with_s_measure: Add the S-measure, of two classes; the others come from confusion matrices, which cost less.
    """
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    mine = range(rank, len(dataset), world)
    confusions: list[np.ndarray] = []
    measures: list[float] = []
    for start in range(0, len(mine), batch_size):
        items = [dataset[index] for index in mine[start : start + batch_size]]
        for item, logits in zip(items, segment(model, processor, [item["image"] for item in items]), strict=True):
            prediction, truth = processor.classes_of(logits).numpy(), item["mask"]
            confusions.append(
                confusion_matrix(
                    prediction, truth, labels.num_classes, labels.ignore_index, multilabel=labels.multilabel
                )
            )
            if with_s_measure:
                probability = class_probabilities(logits)[1].numpy()
                measures.append(s_measure(probability, truth == 1, truth != labels.ignore_index))
    scores = summarize(gather_object(confusions), multilabel=labels.multilabel)
    if with_s_measure:
        defined = [measure for measure in gather_object(measures) if not math.isnan(measure)]
        scores["s_measure"] = float(np.mean(defined)) if defined else math.nan
    return scores
