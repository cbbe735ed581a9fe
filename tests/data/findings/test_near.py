import numpy as np
import pytest
from PIL import Image

from convlora.data.findings import near
from convlora.data.findings.near import near_pairs
from tests.data.findings.sets import hela


def thumbnail(image):
    return np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BOX))


@pytest.fixture(scope="module")
def thumbnails():
    return [thumbnail(pair.image) for pair in hela().pairs.values()]


def test_images_of_one_kind_are_no_pairs(thumbnails):
    assert near_pairs(np.stack(thumbnails)) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda image: (image * 0.6 + 40).astype(np.uint8),
        lambda image: np.asarray(Image.fromarray(image).resize((170, 170))),
        lambda image: np.clip(image + np.random.default_rng(0).normal(0, 8, image.shape), 0, 255).astype(np.uint8),
    ],
    ids=["brightened", "resized", "noisy"],
)
def test_a_changed_copy_is_a_pair(thumbnails, change):
    image = next(iter(hela().pairs.values())).image
    assert near_pairs(np.stack([*thumbnails, thumbnail(change(image))])) == [(0, len(thumbnails))]


def test_flat_images_and_none_are_no_pairs():
    assert near_pairs(np.full((5, 32, 32), 7, dtype=np.uint8)) == []
    assert near_pairs(np.zeros((0, 32, 32), dtype=np.uint8)) == []


def test_buckets_find_the_same_pairs_as_all_with_all(monkeypatch):
    rng = np.random.default_rng(0)
    base = rng.integers(0, 255, (300, 32, 32)).astype(np.float32)
    copies = (base[:40] * 0.9 + rng.normal(0, 3, (40, 32, 32))).clip(0, 255)
    every = np.concatenate([base, copies]).astype(np.uint8)
    exact = near_pairs(every)
    assert exact == [(i, 300 + i) for i in range(40)]
    monkeypatch.setattr(near, "_EXACT", 100)
    assert near_pairs(every) == exact
