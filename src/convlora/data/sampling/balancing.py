"""What training can do about classes of which there is much less than of others: weigh them, or show them more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set


def balanced_weights(pixels: Sequence[int]) -> tuple[float, ...]:
    """Weights by inverse frequency: n / (k · n_c) for each class c, so that all classes weigh alike together.

    Args:
        pixels: n_c, of each class in the training masks; n is their sum, k the number of classes that are there.

    Returns:
        One number a class; 1 for a class that is nowhere.
    """
    there = sum(count > 0 for count in pixels)
    return tuple(sum(pixels) / (there * count) if count else 1.0 for count in pixels)


def repeat_factors(classes: Sequence[Set[int]], threshold: float) -> tuple[float, ...]:
    """How often each image is shown in an epoch, on average: repeat-factor sampling (Gupta et al., LVIS, CVPR 2019).

    A class that a fraction f of the images hold has the factor max(1, √(threshold / f)); an image has the largest of
    its classes, or 1 if it has none.

    Args:
        classes: That each image's mask holds, but for the background.
        threshold: Images with a class that this fraction of the images, or more, hold are not repeated for it.
    """
    held = Counter(class_id for found in classes for class_id in found)
    factor = {class_id: max(1.0, (threshold * len(classes) / count) ** 0.5) for class_id, count in held.items()}
    return tuple(max((factor[class_id] for class_id in found), default=1.0) for found in classes)
