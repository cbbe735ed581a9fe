"""Linear probes: how well the class of each token can be read off the frozen encoder by a linear map."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convlora.analysis.encoding import encode, vit_blocks
from convlora.data.dataset import SegmentationDataset
from convlora.inference.predictor import Predictor
from convlora.objectives.metrics import confusion_matrix, summarize

EMBEDDING = "embedding"  # the encoder's output, which the decoder sees

DEFINITION = (
    "Ridge regression from a token's features, standardised, to its one-hot class (penalty: 0.001 of the number of "
    "tokens), fitted on training images; the largest answer wins. The class of a token is the most frequent one of its "
    "pixels; tokens that are mostly padding or ignored pixels are left out. Scores count tokens of the test images."
)

_PENALTY = 1e-3


@dataclass(frozen=True)
class ProbeScore:
    """Scores of one probe: IoU averaged over all classes, and the share of tokens that got their class."""

    miou: float
    accuracy: float


def token_classes(labels: Tensor, grid: tuple[int, int], num_classes: int) -> Tensor:
    """The most frequent value of each token's pixels.

    Args:
        labels: (b, H, W) class ids; anything else, such as the label to ignore, is no class.
        grid: (h, w) tokens, of which H and W are multiples.
        num_classes: K.

    Returns:
        (b, h, w) int64; K where pixels without a class are the most frequent. Of equally frequent ones the first.
    """
    (b, height, width), (h, w) = labels.shape, grid
    ids = torch.where((labels >= 0) & (labels < num_classes), labels, num_classes)
    tokens = ids.view(b, h, height // h, w, width // w).transpose(2, 3).reshape(b * h * w, -1)
    numbered = tokens + (num_classes + 1) * torch.arange(b * h * w, device=ids.device)[:, None]
    counts = numbered.flatten().bincount(minlength=b * h * w * (num_classes + 1))
    return counts.view(b, h, w, num_classes + 1).argmax(-1)


class RidgeClassifier:
    """Ridge regression to one-hot classes, from sums over samples: its memory does not grow with their number.

    Args:
        num_classes: K.
        penalty: Of the squared weights of standardised features, as a multiple of the number of samples.
    """

    def __init__(self, num_classes: int, penalty: float = _PENALTY) -> None:
        self.num_classes = num_classes
        self.penalty = penalty
        self.sums: Tensor | None = None  # (d + 1 + K)²: products of features, 1 and one-hot classes
        self.weight, self.bias = torch.empty(0), torch.empty(0)

    def add(self, features: Tensor, classes: Tensor) -> None:
        """Take (n, d) features and their (n,) classes into account."""
        joined = torch.cat([features, torch.ones_like(features[:, :1]), F.one_hot(classes, self.num_classes)], dim=1)
        if joined.device.type != "mps":  # which has no float64
            joined = joined.double()
        products = joined.T @ joined
        self.sums = products if self.sums is None else self.sums + products

    def fit(self) -> None:
        """Solve for the weights.

        Raises:
            ValueError: There is no sample.
        """
        if self.sums is None:
            raise ValueError("there is no sample to fit to")
        d = len(self.sums) - 1 - self.num_classes
        means = self.sums / self.sums[d, d]
        covariance = means - torch.outer(means[d], means[d])
        deviation = covariance.diagonal()[:d].clamp(min=0).sqrt()
        scale = torch.where(deviation > 1e-6 * means.diagonal()[:d].sqrt(), 1 / deviation, 0.0)
        correlation = covariance[:d, :d] * scale[:, None] * scale
        correlation.diagonal().add_(self.penalty)
        self.weight = scale[:, None] * torch.linalg.solve(correlation, covariance[:d, d + 1 :] * scale[:, None])
        self.bias = means[d, d + 1 :] - means[d, :d] @ self.weight

    def predict(self, features: Tensor) -> Tensor:
        """Classes (n,) of (n, d) features."""
        return (features.to(self.weight) @ self.weight + self.bias).argmax(-1)


def probe_scores(
    predictor: Predictor,
    train: SegmentationDataset,
    test: SegmentationDataset,
    blocks: Sequence[int],
    *,
    batch_size: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, ProbeScore]:
    """Fit probes to the encoder of a segmenter on `train`, and score them on `test`.

    The model is taken as it is: call this inside `model.disable_adapter()` for the encoder before tuning.

    Args:
        predictor: The segmenter.
        train, test: Images with masks.
        blocks: Numbers of the blocks of SAM's ViT that are probed, besides its embedding.
        batch_size: Images that are encoded at a time.
        progress: Called with the number of images that are done.

    Returns:
        Scores by "block N" and "embedding"; empty if no token of `train` or of `test` has a class.
    """
    num_classes = len(predictor.id2label)
    probes: dict[str, RidgeClassifier] = {}
    for features, classes in _tokens(predictor, train, blocks, batch_size, progress):
        for name, values in features.items():
            if len(values):
                probes.setdefault(name, RidgeClassifier(num_classes)).add(values, classes[name])
    for probe in probes.values():
        probe.fit()
    confusions = {name: np.zeros((num_classes, num_classes), dtype=np.int64) for name in probes}
    for features, classes in _tokens(predictor, test, blocks, batch_size, lambda done: progress(len(train) + done)):
        for name, probe in probes.items():
            found, truth = probe.predict(features[name]).cpu().numpy(), classes[name].cpu().numpy()
            confusions[name] += confusion_matrix(found[None], truth[None], num_classes)
    scores = {name: summarize([confusion]) for name, confusion in confusions.items() if confusion.sum()}
    return {name: ProbeScore(score["miou"], score["pixel_accuracy"]) for name, score in scores.items()}


def _tokens(
    predictor: Predictor,
    dataset: SegmentationDataset,
    blocks: Sequence[int],
    batch_size: int,
    progress: Callable[[int], None],
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Features (n, d) and classes (n,) of the tokens that have a class, by name, batch by batch."""
    for start in range(0, len(dataset), batch_size):
        items: list[dict[str, Any]] = [dataset[i] for i in range(start, min(start + batch_size, len(dataset)))]
        images = [item["image"] for item in items]
        labels = predictor.processor(images, [item["mask"] for item in items]).labels
        features, classes = {}, {}
        for name, values in _features(predictor, images, blocks).items():
            ids = token_classes(labels, (values.shape[1], values.shape[2]), len(predictor.id2label)).to(values.device)
            known = ids < len(predictor.id2label)
            features[name], classes[name] = values[known].float(), ids[known]
        yield features, classes
        progress(start + len(items))


def _features(predictor: Predictor, images: Sequence[np.ndarray], blocks: Sequence[int]) -> dict[str, Tensor]:
    """Tokens (b, h, w, c) behind each of the blocks, and the embedding."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda block, inputs, tokens: found.update({name: tokens})

    with contextlib.ExitStack() as stack:
        for number, block in vit_blocks(predictor):
            if number in blocks:
                stack.callback(block.register_forward_hook(keep(f"block {number}")).remove)
        embedding = encode(predictor, images)
    return {**found, EMBEDDING: embedding.movedim(1, -1)}
