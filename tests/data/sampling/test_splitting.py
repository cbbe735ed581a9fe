import dataclasses
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlora.data.samples import SPLITS, Sample
from convlora.data.sampling.splitting import split_samples
from convlora.data.settings import DataSettings
from convlora.errors import DataError, SettingsError


def named(*names, split=None):
    return [Sample(name, Path(f"{name}.png"), split=split) for name in names]


def numbered(count):
    return named(*(f"s{i:03d}" for i in range(count)))


def split(samples, need_train=True, **values):
    return split_samples(samples, DataSettings(images="x", **values), need_train=need_train)


def names(splits):
    return {key: [sample.name for sample in members] for key, members in splits.items()}


@given(
    count=st.integers(3, 60),
    val=st.floats(0.01, 0.45),
    test=st.floats(0.01, 0.45),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_splits_are_disjoint_complete_of_the_right_size_and_independent_of_the_order(count, val, test, seed, data):
    samples = numbered(count)
    settings = {"val_fraction": val, "test_fraction": test, "split_seed": seed}
    splits = split(samples, **settings)
    assert list(splits) == list(SPLITS)
    assert sorted(chain.from_iterable(names(splits).values())) == [sample.name for sample in samples]
    assert len(splits["train"]) >= 1
    for key, fraction in (("val", val), ("test", test)):
        left = count - len(splits["val"]) - 1 if key == "test" else count - 2
        assert len(splits[key]) == min(max(1, int(fraction * count + 0.5)), left)
    shuffled = split(data.draw(st.permutations(samples)), **settings)
    assert {k: sorted(v) for k, v in names(shuffled).items()} == {k: sorted(v) for k, v in names(splits).items()}


def test_the_seed_decides_the_split_and_a_fixed_one_never_changes():
    splits = {seed: names(split(numbered(40), split_seed=seed))["val"] for seed in range(3)}
    assert len({tuple(members) for members in splits.values()}) == 3
    assert splits[0] == ["s001", "s003", "s009", "s010", "s017", "s033"]


def test_adding_an_image_moves_at_most_one_image_into_and_out_of_each_split():
    before, after = names(split(numbered(100))), names(split(numbered(101)))
    for key in SPLITS:
        assert len(set(before[key]) - set(after[key])) <= 2


@given(
    sizes=st.lists(st.integers(1, 8), min_size=3, max_size=12), fraction=st.floats(0.05, 0.4), seed=st.integers(0, 5)
)
def test_groups_stay_whole_and_every_split_has_one(sizes, fraction, seed):
    samples = named(*(f"v{group}_{i}" for group, size in enumerate(sizes) for i in range(size)))
    splits = split(samples, group=r"^(v\d+)_", val_fraction=fraction, test_fraction=fraction, split_seed=seed)
    groups = [{sample.name.split("_")[0] for sample in members} for members in splits.values()]
    assert all(groups) and sum(map(len, groups)) == len(sizes) == len(set.union(*groups))


def test_a_fraction_of_0_gives_an_empty_split():
    splits = split(numbered(2), val_fraction=0.0, test_fraction=0.0)
    assert [len(members) for members in splits.values()] == [2, 0, 0]
    assert [len(members) for members in split(numbered(2), val_fraction=0.0).values()] == [1, 0, 1]


def test_too_few_images_or_groups_are_refused():
    with pytest.raises(DataError, match="2 images are too few for train, val, test: at least 3 are needed"):
        split(numbered(2))
    with pytest.raises(DataError, match=r"1 groups of images \(group='\^\(s\)'\) are too few"):
        split(numbered(50), group="^(s)")


def test_slices_of_one_volume_are_refused_with_the_way_to_part_them():
    slices = [dataclasses.replace(sample, group="volume") for sample in numbered(50)]
    with pytest.raises(DataError, match=r"1 groups of images are too few .* part the groups.* --group '\(\.\*\)'"):
        split(slices)
    assert all(split(slices, group="(.*)").values())


def test_given_splits_are_used_as_they_are():
    samples = named("a", split="test") + named("b", "c", split="train")
    assert names(split(samples)) == {"train": ["b", "c"], "val": [], "test": ["a"]}


def test_incomplete_splits_are_refused():
    with pytest.raises(DataError, match=r"2 of 3 images have no split \(b, c\); fill the split column"):
        split(named("a", split="train") + named("b", "c"))
    with pytest.raises(DataError, match="none of the 1 images has the split train"):
        split(named("a", split="test"))
    assert names(split(named("a", split="test"), need_train=False))["test"] == ["a"]


def test_given_splits_that_part_a_group_are_refused():
    samples = named("p1_a", "p2_a", split="train") + named("p1_b", split="val")
    with pytest.raises(DataError, match=r"part 1 groups \(p1\)"):
        split(samples, group="^(p.)")


@pytest.mark.parametrize("group", [r"^(t\d)", r"s|(x)"])
def test_a_group_that_misses_names_is_refused(group):
    with pytest.raises(SettingsError, match=r"does not match 5 of 5 image names \(s000, s001, s002 and 2 more\)"):
        split(numbered(5), group=group)


def test_wrong_settings_are_refused():
    with pytest.raises(SettingsError, match="val_fraction=-1 must be"):
        split(numbered(5), val_fraction=-1)
