import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader

from convlora.data.augmentation.settings import AugmentationSettings
from convlora.data.dataset import EpochSampler, SegmentationDataset
from convlora.data.pixels.masks import LabelFormat
from convlora.data.readers.pairing import find_images, find_samples
from convlora.data.settings import ImageLimits
from convlora.errors import ImageError, MaskError, PairingError
from tests.data.files import data_set, noise, save

BINARY = LabelFormat(("background", "polyp"), "binary")


@pytest.fixture
def samples(tmp_path):
    masks = [np.where(noise(6, 8, 1, seed=i) > 127, 255, 0).astype(np.uint8) for i in range(6)]
    return find_samples(**data_set(tmp_path, masks))


def dataset(samples, augmentation=None, seed=0, limits=ImageLimits()):  # noqa: B008, it is frozen
    return SegmentationDataset(samples, BINARY, limits=limits, augmentation=augmentation, seed=seed)


def same(first, second):
    return all(np.array_equal(first[key], second[key]) for key in ("image", "mask", "name"))


def test_an_index_gives_the_files_as_they_are_even_with_augmentation(samples):
    data = dataset(samples, AugmentationSettings())
    assert len(data) == 6
    for index in range(6):
        item = data[index]
        np.testing.assert_array_equal(item["image"], noise(6, 8, seed=index))
        np.testing.assert_array_equal(item["mask"], noise(6, 8, 1, seed=index) > 127)
        assert item["mask"].dtype == np.uint8 and item["name"] == f"s{index:02d}"


def test_epoch_index_and_seed_decide_the_augmentation_and_nothing_else_does(samples):
    first, again = dataset(samples, AugmentationSettings()), dataset(samples, AugmentationSettings())
    assert same(first[3, 2], again[3, 2])
    again[0, 0], again[3, 1]
    assert same(first[3, 2], again[3, 2])
    others = (first[4, 2], first[2], dataset(samples, AugmentationSettings(), seed=1)[3, 2])
    assert not any(same(first[3, 2], other) for other in others)


def test_without_augmentation_the_epoch_changes_nothing(samples):
    assert same(dataset(samples)[7, 2], dataset(samples)[2])


def test_workers_give_the_same_items_as_the_main_process(samples):
    data, sampler = dataset(samples, AugmentationSettings()), EpochSampler(6, seed=3)
    sampler.set_epoch(2)
    alone, shared = (
        list(DataLoader(data, sampler=sampler, batch_size=None, num_workers=workers, collate_fn=list))
        for workers in (0, 2)
    )
    assert len(alone) == 6 and pickle.dumps(data)
    for first, second in zip(alone, shared, strict=True):
        assert first == second


def test_files_that_changed_since_the_check_are_refused(samples):
    save(samples[0].mask, np.zeros((6, 9), dtype=np.uint8))
    with pytest.raises(MaskError, match="6 x 9 pixels"):
        dataset(samples)[0]
    save(samples[1].mask, np.full((6, 8), 7, dtype=np.uint8))
    with pytest.raises(MaskError, match="values 7 are not among"):
        dataset(samples)[1]
    samples[2].image.unlink()
    with pytest.raises(ImageError, match="cannot be opened"):
        dataset(samples)[2]
    with pytest.raises(ImageError, match="megapixels"):
        dataset(samples, limits=ImageLimits(47))[3]


def test_images_without_masks_are_refused(samples):
    alone = find_images(str(samples[0].image.parent))
    with pytest.raises(PairingError, match=r"s00\.png: has no mask"):
        dataset(alone)[0]


def test_each_epoch_is_another_permutation_given_by_the_seed():
    orders = {}
    for seed in (0, 1):
        sampler = EpochSampler(20, seed)
        assert len(sampler) == 20
        for epoch in (0, 1, 5):
            sampler.set_epoch(epoch)
            keys = list(sampler)
            assert keys == list(sampler) and {e for e, _ in keys} == {epoch}
            orders[seed, epoch] = tuple(index for _, index in keys)
            assert all(type(part) is int for key in keys for part in key)
            assert sorted(orders[seed, epoch]) == list(range(20))
    assert len(set(orders.values())) == 6


def test_a_new_sampler_starts_at_epoch_0():
    sampler = EpochSampler(4, 7)
    first = list(sampler)
    sampler.set_epoch(0)
    assert first == list(sampler)
