"""Train on a part of the training images: a fraction, exactly so many, or so many of each class."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Set

from convlora.data.labels.format import LabelFormat
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


def choose_subset(
    counts: Mapping[str, Counter[int]], size: int, labels: LabelFormat, settings: DataSettings
) -> tuple[set[str], list[str]]:
    """Names of the training images that are used, and notes.

    Args:
        counts: Pixels by class id or `ignore_index` of each image's mask, by the image's name.
        size: How many are used; without meaning if `settings.train_images_per_class` is given.
        labels: Of the masks.
        settings: Of the data.
    """
    classes = {
        name: {c for c, pixels in count.items() if pixels} - {labels.ignore_index} for name, count in counts.items()
    }
    seed = settings.split_seed if settings.subset_seed is None else settings.subset_seed
    each = settings.train_images_per_class
    if each is None:
        chosen = draw_subset(classes, size, seed)
        return chosen, [f"training on {len(chosen)} of {len(counts)} images"]
    chosen = draw_each({name: found - {0} for name, found in classes.items()}, each, seed)
    if not chosen:
        raise DataError("train_images_per_class: no mask of the train split holds a class beside the background.")
    held = Counter(class_id for name in chosen for class_id in classes[name] - {0})
    few = [f"{labels.classes[c]} ({count})" for c, count in sorted(held.items()) if count < each]
    note = f"training on {len(chosen)} of {len(counts)} images, at least {each} of each class"
    return chosen, [note + (f", but all of {', '.join(few)}, which fewer hold" if few else "")]


def draw_each(classes: Mapping[str, Set[int]], each: int, seed: int) -> set[str]:
    """Names of images of which `each` hold every class, or all that there are.

    In round n each class that fewer than n of the chosen images hold gets one more, the rarest class first; so the
    choice for a smaller number is part of that for a larger one.

    Args:
        classes: As in `draw_subset`, without those that need not be held.
        each: At least 1.
        seed: Another one gives another choice.
    """
    holders: dict[int, list[str]] = {}
    for name in sorted(classes, key=lambda name: _rank(seed, name)):
        for class_id in classes[name]:
            holders.setdefault(class_id, []).append(name)
    chosen: set[str] = set()
    for wanted in range(1, each + 1):
        for class_id in sorted(holders, key=lambda class_id: (len(holders[class_id]), class_id)):
            free = [name for name in holders[class_id] if name not in chosen]
            if free and len(holders[class_id]) - len(free) < wanted:
                chosen.add(free[0])
    return chosen


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
    queue = sorted(classes, key=lambda name: _rank(seed, name))
    missing = set[int]().union(*classes.values())
    chosen: list[str] = []
    while missing and len(chosen) < size:
        best = max(queue, key=lambda name: len(classes[name] & missing))  # the first of equals
        queue.remove(best)
        missing -= classes[best]
        chosen.append(best)
    return {*chosen, *queue[: size - len(chosen)]}


def _rank(seed: int, name: str) -> bytes:
    """Place of an image in the order of a seed."""
    return hashlib.sha256(f"subset:{seed}:{name}".encode(errors="surrogateescape")).digest()
