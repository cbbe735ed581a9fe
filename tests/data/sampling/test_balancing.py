from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlora.data.dataset import EpochSampler
from convlora.data.findings.checking import check_data
from convlora.data.sampling.balancing import balanced_weights, repeat_factors
from convlora.data.sampling.subsets import draw_each
from convlora.data.settings import DataSettings
from convlora.errors import DataError, SettingsError
from tests.data.files import data_set

PRESENCE = st.lists(st.frozensets(st.integers(1, 5)), min_size=1, max_size=40)


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=9).filter(any))
def test_balanced_classes_weigh_alike_together_and_one_on_average(pixels):
    weights = np.array(balanced_weights(pixels))
    there = np.array(pixels) > 0
    shares = (weights * pixels)[there]
    np.testing.assert_allclose(shares, sum(pixels) / there.sum())
    assert (weights[~there] == 1).all()


@given(classes=PRESENCE, threshold=st.floats(0.01, 1))
def test_repeat_factors_are_those_of_lvis(classes, threshold):
    got = repeat_factors(classes, threshold)
    for found, factor in zip(classes, got, strict=True):
        shares = [sum(c in other for other in classes) / len(classes) for c in found]
        want = max([max(1.0, (threshold / share) ** 0.5) for share in shares], default=1.0)
        assert factor == pytest.approx(want)


@given(factors=st.lists(st.floats(1, 6), min_size=1, max_size=30), seed=st.integers(0, 3), epoch=st.integers(0, 50))
def test_an_epoch_has_each_image_as_often_as_its_factor_rounded_down_or_up(factors, seed, epoch):
    sampler = EpochSampler(len(factors), seed, factors)
    sampler.set_epoch(epoch)
    keys = list(sampler)
    assert keys == list(sampler) and len(set(keys)) == len(keys) == len(sampler)
    scale = len(sampler) / sum(factors)
    counts = Counter(index for _, index in keys)
    for index, factor in enumerate(factors):
        assert np.floor(factor * scale - 1e-9) <= counts[index] <= np.ceil(factor * scale + 1e-9)
    firsts = {index for first, index in keys if first == epoch}
    assert firsts == set(range(len(factors)))  # each once as in an epoch without repeats


def test_over_many_epochs_the_mean_is_the_factor_and_the_order_changes():
    factors = [1.0, 1.5, 2.25, 3.1]
    sampler = EpochSampler(4, 7, factors)
    counts, orders = Counter(), set()
    for epoch in range(2000):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        counts.update(index for _, index in keys)
        orders.add(tuple(index for _, index in keys))
    scale = len(sampler) / sum(factors)
    # the standard deviation of a mean of 2000 draws of spread at most 0.5 is 0.011
    assert [counts[i] / 2000 for i in range(4)] == pytest.approx([f * scale for f in factors], abs=0.05)
    assert len(orders) > 500


def test_without_repeats_the_order_is_what_it_always_was():
    sampler = EpochSampler(5, 3)
    order = np.random.default_rng((3, 0)).permutation(5).tolist()
    assert list(sampler) == [(0, index) for index in order] and len(sampler) == 5
    with pytest.raises(ValueError, match="5 indices need as many repeats"):
        EpochSampler(5, 3, [1.0] * 4)
    with pytest.raises(ValueError, match="at least 1"):
        EpochSampler(1, 3, [0.5])


@given(classes=st.dictionaries(st.text("ab1", min_size=1, max_size=5), st.frozensets(st.integers(1, 4)), max_size=25))
def test_few_shot_subsets_hold_each_class_so_often_and_lie_within_each_other(classes):
    before = set()
    for each in (1, 2, 3, 5):
        chosen = draw_each(classes, each, seed=0)
        for class_id in set().union(*classes.values()):
            holders = {name for name, found in classes.items() if class_id in found}
            assert len(chosen & holders) >= min(each, len(holders))
        assert before <= chosen and all(classes[name] for name in chosen)
        before = chosen
    assert draw_each(dict(reversed(classes.items())), 5, seed=0) == before


def test_the_images_of_a_few_shot_run_are_told(tmp_path):
    masks = [0] * 4 + [np.eye(6, 8)] * 10 + [2 * np.eye(6, 8)] * 2
    data = data_set(tmp_path, [np.asarray(mask, dtype=np.uint8) for mask in masks], size=(6, 8))
    settings = {"val_fraction": 0, "test_fraction": 0, **data}
    checked = check_data(DataSettings(**settings, train_images_per_class=3))
    assert len(checked.splits["train"]) == 5 and len(checked.train_pixels) == 5
    note = "training on 5 of 16 images, at least 3 of each class, but all of class 2 (2), which fewer hold"
    assert note in checked.notes
    assert all(sum(pixels) == 48 and sum(pixels[1:]) == 6 for pixels in checked.train_pixels.values())
    for values, message in (
        ({"train_images_per_class": 0}, "train_images_per_class=0 must be at least 1"),
        ({"train_images_per_class": 2, "train_images": 3}, "give one of them"),
        ({"train_images_per_class": 2, "train_fraction": 0.5}, "give one of them"),
    ):
        with pytest.raises(SettingsError, match=message):
            check_data(DataSettings(**settings, **values))


def test_a_few_shot_run_without_any_class_is_refused(tmp_path):
    data = data_set(tmp_path, [0, 0, 0])
    with pytest.raises(DataError, match="no mask of the train split holds a class beside the background"):
        check_data(DataSettings(**data, val_fraction=0, test_fraction=0, train_images_per_class=1))
