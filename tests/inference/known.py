"""A predictor whose answer is known to numpy, in memory and in windows: each class by the brightness of a channel."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from convlora.data.labels.colours import class_colour
from convlora.sam import SamSegmentationImageProcessor
from convlora.sam.segmenting import segment, segment_bands

TILE = 64
THRESHOLDS = (100.5, 150.5)
"""Class 1 is where the first channel is above the first, class 2 where the second is above the second."""


class Known:
    """Two classes beside the background, of which a pixel is of the one further above its threshold; or one; or
    several that overlap."""

    precision = "fp32"
    device = torch.device("cpu")

    def __init__(self, classes=3, *, multilabel=False, channels=None, tile=TILE, overlap=0.25):
        self.id2label = {i: ("background", "roof", "big tree")[i] for i in range(classes)}
        self.colours = {i: class_colour(i) for i in range(classes)}
        self.multilabel = multilabel
        count = channels or 3
        self.processor = SamSegmentationImageProcessor(
            **{"size": TILE, "tile": tile, "overlap": overlap, "channels": channels, "multilabel": multilabel},
            **{"image_mean": [0.0] * count, "image_std": [1.0 if channels else 1 / 255] * count},
        )
        self.model = _Channels(classes - 1, background=classes > 2 and not multilabel)

    def logits(self, images):
        return list(segment(self.model, self.processor, images))

    def bands(self, read, size, *, batch_size=1, first=0):
        return segment_bands(self.model, self.processor, read, size, batch_size=batch_size, first=first)

    def expected(self, pixels):
        """The answer to (C, H, W), by numpy."""
        above = np.stack([pixels[i] - THRESHOLDS[i] for i in range(len(self.id2label) - 1)]).astype(float)
        if self.multilabel:
            return sum((above[i] > 0).astype(np.int32) << i for i in range(len(above)))
        return np.concatenate([np.zeros((1, *above.shape[1:])), above]).argmax(0).astype(np.uint8)


class _Channels(nn.Module):
    def __init__(self, count, *, background):
        super().__init__()
        self.thresholds = nn.Parameter(torch.tensor(THRESHOLDS[:count]).view(-1, 1, 1), requires_grad=False)
        self.background = background

    def forward(self, pixel_values):
        above = pixel_values[:, : len(self.thresholds)] - self.thresholds
        return SimpleNamespace(logits=torch.cat([0 * above[:, :1], above], 1) if self.background else above)
