"""Train on a part of the training images: a fraction, or exactly so many."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set

from convlora.data.settings import DataSettings
from convlora.errors import DataError


def subset_size(available: int, settings: DataSettings) -> int:
    """How many of the available training images are used.

    Raises:
        DataError: more are asked for than there are.
    """
    wanted = settings.train_images
    if wanted is None:  # of very few images a small fraction is still one
        return max(min(1, available), int(settings.train_fraction * available + 0.5))
    if wanted > available:
        raise DataError(
            f"train_images={wanted}, but the train split has only {available} images; ask for fewer, or leave "
            "--train_images out to use them all."
        )
    return wanted


def draw_subset(classes: Mapping[str, Set[int]], size: int, seed: int) -> set[str]:
    """Names of `size` images: first some that cover the classes, then random ones.

    They are the first ones of an order of all images, so smaller subsets are part of larger ones. The cover is greedy,
    always the image that adds most classes. Ties, and all after it, go by a hash of the seed and the name, which
    depends neither on the files' order nor on the machine.

    Args:
        classes: Classes that each image's mask holds, by the image's name.
        size: 0 to the number of images.
        seed: Another one gives another subset.
    """

    def rank(name: str) -> bytes:
        return hashlib.sha256(f"subset:{seed}:{name}".encode(errors="surrogateescape")).digest()

    queue = sorted(classes, key=rank)
    missing = set[int]().union(*classes.values())
    chosen: list[str] = []
    while missing and len(chosen) < size:
        best = max(queue, key=lambda name: len(classes[name] & missing))  # the first of equals
        queue.remove(best)
        missing -= classes[best]
        chosen.append(best)
    return {*chosen, *queue[: size - len(chosen)]}
