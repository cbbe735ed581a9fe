"""The embedded set, to be spoilt by one flaw at a time."""

import csv
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from convlora.data.findings.checking import check_data
from convlora.data.settings import DataSettings
from tests.data.files import save

HELA = Path(__file__).parents[3] / "src" / "convlora" / "assets" / "hela"


@dataclass
class Pair:
    """One sample."""

    split: str
    image: np.ndarray
    """uint8 (H, W)."""
    mask: np.ndarray
    """uint8 (H, W), 0 or 255."""


@dataclass
class SpoiltSet:
    """Pairs by name."""

    pairs: dict[str, Pair] = field(default_factory=dict)

    def of(self, split):
        return [name for name, pair in self.pairs.items() if pair.split == split]

    def write(self, folder):
        """Images, masks and a table of them; returns the table's path."""
        rows = [("image", "mask", "split")]
        for name, pair in self.pairs.items():
            save(folder / "images" / f"{name}.png", pair.image)
            save(folder / "masks" / f"{name}.png", pair.mask)
            rows.append((f"images/{name}.png", f"masks/{name}.png", pair.split))
        table = folder / "samples.csv"
        with table.open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
        return table


@cache
def _decoded():
    with (HELA / "samples.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [
        (Path(row["image"]).stem, row["split"], *(np.asarray(Image.open(HELA / row[key])) for key in ("image", "mask")))
        for row in rows
    ]


def hela(every=1):
    """The embedded set as it is, or a part of it, to be changed."""
    return SpoiltSet({name: Pair(split, *map(np.copy, arrays)) for name, split, *arrays in _decoded()[::every]})


def equal_across_splits(data):
    one, other = data.pairs[data.of("train")[0]], data.pairs[data.of("test")[0]]
    other.image, other.mask = one.image, one.mask


def similar_across_splits(data):
    equal_across_splits(data)
    other = data.pairs[data.of("test")[0]]
    other.image = (other.image * 0.9).astype(np.uint8)


def repeated(data):
    one, other = (data.pairs[name] for name in data.of("train")[:2])
    other.image, other.mask = one.image, one.mask


def contradicting_masks(data):
    repeated(data)
    mask = data.pairs[data.of("train")[1]].mask
    data.pairs[data.of("train")[1]].mask = ndimage.binary_dilation(mask, iterations=2).astype(np.uint8) * 255


def rare_class(data):
    for pair in data.pairs.values():
        pair.mask = pair.mask // 255
    for name in [*data.of("train")[:4], *data.of("val")[:4], *data.of("test")[:4]]:
        data.pairs[name].mask[20:26, 20:26] = 2


def seldom_class(data):
    for pair in data.pairs.values():
        pair.mask = pair.mask // 255
    for name in [*data.of("train")[:2], data.of("val")[0], data.of("test")[0]]:
        objects, _ = ndimage.label(data.pairs[name].mask)
        data.pairs[name].mask[(objects > 0) & (objects <= 4)] = 2


def unscored_class(data):
    for pair in data.pairs.values():
        pair.mask = pair.mask // 255
    for name in [*data.of("train"), *data.of("val")]:
        data.pairs[name].mask[data.pairs[name].mask.cumsum(0) > 99] *= 2


def no_foreground(data):
    for name in data.of("test"):
        data.pairs[name].mask[:] = 0


def empty(data):
    for pair in data.pairs.values():
        pair.mask[:] = 0


def mostly_empty(data):
    for name in list(data.pairs)[: len(data.pairs) // 2 + 1]:
        data.pairs[name].mask[:] = 0


def inverted(data):
    for name in data.of("train")[:3]:
        data.pairs[name].mask = 255 - data.pairs[name].mask


def foreground_around(data):
    for pair in data.pairs.values():
        pair.mask = 255 - pair.mask


def nearly_black(data):
    for pair in data.pairs.values():
        pair.image = pair.image // 16


def brightness(data):
    for name in data.of("val"):
        data.pairs[name].image = (data.pairs[name].image * 0.7 + 60).astype(np.uint8)


def tiny_objects(data):
    data.pairs = dict(list(data.pairs.items())[::2])
    for pair in data.pairs.values():
        pair.image, pair.mask = (np.pad(array, ((0, 768), (0, 768))) for array in (pair.image, pair.mask))


def specks(data):
    rng = np.random.default_rng(0)
    for pair in data.pairs.values():
        for row, column in rng.integers(0, 256, (6, 2)):
            pair.mask[row, column] ^= 255


def all_shifted(data):
    for pair in data.pairs.values():
        pair.mask = np.roll(pair.mask, (6, -4), (0, 1))


def shifted(data):
    for name in data.of("train")[:2]:
        data.pairs[name].mask = np.roll(data.pairs[name].mask, (8, 8), (0, 1))


def unrelated(data):
    masks = [pair.mask for pair in data.pairs.values()]
    for mask, pair in zip(masks[7:] + masks[:7], data.pairs.values(), strict=True):
        pair.mask = mask


def stray(data):
    one, other = data.pairs[data.of("train")[0]], data.pairs[data.of("train")[5]]
    one.mask, other.mask = other.mask, one.mask


FLAWS = {
    flaw.__name__.replace("_", "-"): flaw
    for flaw in (
        equal_across_splits,
        similar_across_splits,
        contradicting_masks,
        inverted,
        all_shifted,
        empty,
        no_foreground,
        nearly_black,
        tiny_objects,
        unrelated,
        repeated,
        rare_class,
        seldom_class,
        unscored_class,
        brightness,
        mostly_empty,
        foreground_around,
        stray,
        shifted,
        specks,
    )
}
"""By the kind of the one finding that each of them brings about."""


@cache
def findings_with(kind):
    """What is found in the embedded set with one flaw, or with none, if `kind` is None."""
    data = hela()
    if kind is not None:
        FLAWS[kind](data)
    with tempfile.TemporaryDirectory() as folder:
        settings = DataSettings(images=str(data.write(Path(folder))))
        return check_data(settings, image_size=512, thorough=True).findings
