from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convlora.data.findings.checking import check_data
from convlora.data.samples import Sample
from convlora.data.sampling.splitting import split_samples
from convlora.data.settings import DataSettings
from convlora.errors import DataError, SettingsError
from tests.data.sampling.test_splitting import named, names, numbered, split

GROUPED = st.lists(st.none() | st.sampled_from("abcdefgh"), min_size=12, max_size=40)


def of_groups(groups):
    return [Sample(f"s{i:02}", Path(f"{i}.png"), group=group) for i, group in enumerate(groups)]


@given(groups=GROUPED, folds=st.integers(2, 4), seed=st.integers(0, 5), data=st.data())
def test_each_image_is_tested_once_and_no_group_is_parted(groups, folds, seed, data):
    samples = of_groups(groups)
    group_of = {sample.name: sample.group or sample.name for sample in samples}
    few = len(set(group_of.values())) < folds + 2  # at least two for train and val in every fold
    if few:
        return
    parts = [names(split(samples, folds=folds, fold=fold, split_seed=seed)) for fold in range(folds)]
    assert sorted(chain.from_iterable(part["test"] for part in parts)) == sorted(group_of)
    for part in parts:
        assert sorted(chain.from_iterable(part.values())) == sorted(group_of)
        assert all(part.values())
        held = [{group_of[name] for name in members} for members in part.values()]
        assert sum(map(len, held)) == len(set().union(*held))
    shuffled = split(data.draw(st.permutations(samples)), folds=folds, fold=1, split_seed=seed)
    assert {k: sorted(v) for k, v in names(shuffled).items()} == {k: sorted(v) for k, v in parts[1].items()}


@given(count=st.integers(5, 60), folds=st.integers(2, 5))
def test_folds_of_single_images_are_of_one_size_and_leave_the_validation_its_fraction(count, folds):
    parts = [split(numbered(count), folds=folds, fold=f, val_fraction=0.2) for f in range(folds)]
    sizes = [len(part["test"]) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    for part in parts:
        assert len(part["val"]) == min(max(1, int(0.2 * count + 0.5)), count - len(part["test"]) - 1)


def test_folds_of_groups_hold_about_as_many_images():
    sizes = [9, 7, 5, 4, 3, 2, 2, 1, 1, 1]  # 35 in 3 folds: no group is larger than one
    samples = of_groups([f"g{i}" for i, size in enumerate(sizes) for _ in range(size)])
    tests = [len(split(samples, folds=3, fold=fold)["test"]) for fold in range(3)]
    assert sorted(tests) == [11, 12, 12]


def test_the_seed_decides_the_folds_and_no_validation_can_be_wanted():
    one, other = (names(split(numbered(30), folds=5, split_seed=seed))["test"] for seed in (0, 1))
    assert one != other and len(one) == 6
    part = split(numbered(4), folds=4, fold=3, val_fraction=0)
    assert [len(part[key]) for key in ("train", "val", "test")] == [3, 0, 1]


def test_folds_that_cannot_be_are_refused():
    for values, message in (
        ({"folds": 1}, "folds=1 must be at least 2"),
        ({"folds": 3, "fold": 3}, "fold=3 must be between 0 and 2, because folds=3"),
        ({"folds": 3, "fold": -1}, "fold=-1 must be between"),
        ({"fold": 2}, "fold=2 is given without folds"),
    ):
        with pytest.raises(SettingsError, match=message):
            split(numbered(10), **values)
    with pytest.raises(DataError, match="folds=5 are more than there are images: 4"):
        split(numbered(4), folds=5)
    with pytest.raises(DataError, match="folds=3 are more than there are groups of images: 2"):
        split(of_groups(["a", "a", "b"]), folds=3)
    with pytest.raises(DataError, match="these have splits already; leave --folds out"):
        split(named("a", "b", split="train"), folds=2)
    with pytest.raises(DataError, match="1 images are too few for train, val: at least 2"):
        split(numbered(2), folds=2)


def test_groups_of_the_source_are_kept_together_unless_a_pattern_is_given():
    samples = of_groups(["p1"] * 10 + ["p2"] * 10 + ["p3"] * 10 + ["p4"] * 10)
    parts = names(split(samples))
    assert sorted(map(len, parts.values())) == [10, 10, 20]
    alone = names(split(samples, group=r"s(\d+)"))
    assert [len(alone[key]) for key in ("train", "val", "test")] == [28, 6, 6]
    given = [Sample(s.name, s.image, split=("train", "test")[i % 2], group=s.group) for i, s in enumerate(samples)]
    with pytest.raises(DataError, match=r"part 4 groups .*or remove the groups, or pass them over with --group"):
        split_samples(given, DataSettings(images="x"))


def test_a_csv_file_gives_groups(tmp_path):
    rows = ["image,mask,group"]
    for i in range(12):
        for folder, values in (("i", np.full((4, 4, 3), i)), ("m", np.eye(4) > 0)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / folder / f"{i}.png")
        rows.append(f"i/{i}.png,m/{i}.png,patient {i // 3}")
    table = tmp_path / "list.csv"
    table.write_text("\n".join(rows), encoding="utf-8")
    parts = names(check_data(DataSettings(images=str(table))).splits)
    assert [len(parts[key]) for key in ("train", "val", "test")] == [6, 3, 3]
    for members in parts.values():
        numbers = sorted(map(int, members))
        assert all(b // 3 == a // 3 or b % 3 == 0 for a, b in pairwise(numbers))
    rows[4] = "i/3.png,m/3.png,"
    table.write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"1 images without a group, where others have one: i/3\.png"):
        check_data(DataSettings(images=str(table)))
