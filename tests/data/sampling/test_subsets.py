import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlora.data.findings.checking import check_data
from convlora.data.sampling.subsets import draw_subset, subset_size
from convlora.data.settings import DataSettings
from convlora.errors import DataError
from tests.data.files import data_set

CLASSES = st.dictionaries(st.text("abc123", min_size=1, max_size=4), st.frozensets(st.integers(0, 5)), max_size=25)


def size(available, **values):
    return subset_size(available, DataSettings(images="x", **values))


@given(classes=CLASSES, seed=st.integers(0, 5), data=st.data())
def test_subsets_have_the_size_lie_within_each_other_and_depend_on_no_order(classes, seed, data):
    subsets = [draw_subset(classes, k, seed) for k in range(len(classes) + 1)]
    assert [len(subset) for subset in subsets] == list(range(len(classes) + 1))
    assert all(small < large for small, large in itertools.pairwise(subsets)) and subsets[-1] == classes.keys()
    shuffled = dict(data.draw(st.permutations(list(classes.items()))))
    assert [draw_subset(shuffled, k, seed) for k in range(len(classes) + 1)] == subsets


@given(classes=CLASSES, seed=st.integers(0, 5))
def test_one_image_a_class_is_enough_for_all_classes(classes, seed):
    everywhere = set().union(*classes.values())
    subset = draw_subset(classes, min(len(everywhere), len(classes)), seed)
    assert set().union(*(classes[name] for name in subset)) == everywhere


def test_few_images_cover_many_classes_where_one_holds_several():
    rare = {f"b{i}": {0} for i in range(50)}
    assert draw_subset({**rare, "x": {0, 1, 2}, "y": {0, 3}, "z": {1}}, 2, seed=0) == {"x", "y"}


def test_after_the_cover_the_draw_is_random():
    classes = {f"s{i:03d}": {0, 1} for i in range(200)}
    drawn = [draw_subset(classes, 50, seed) for seed in range(40)]
    counts = np.array([sum(name in subset for subset in drawn) for name in classes])
    # 40 draws with probability 1/4: mean 10, standard deviation 2.7
    assert counts.sum() == 2000 and counts.min() >= 1 and counts.max() <= 21
    assert len(set(map(frozenset, drawn))) == 40


def test_the_draw_of_a_seed_never_changes():
    classes = {f"s{i:02d}": {0, i % 3} for i in range(30)}
    assert sorted(draw_subset(classes, 4, seed=0)) == ["s03", "s16", "s17", "s28"]


def test_the_size_is_the_number_asked_for_or_the_nearest_to_the_fraction_but_never_none():
    assert [size(200, train_fraction=f) for f in (0.01, 0.05, 0.1, 0.5, 1.0)] == [2, 10, 20, 100, 200]
    assert size(30, train_fraction=0.01) == 1 and size(0) == 0
    assert size(200, train_images=5) == 5 and size(5, train_images=5) == 5
    with pytest.raises(DataError, match=r"train_images=20, but the train split has only 12 images; ask for fewer"):
        size(12, train_images=20)


def check(folder, **values):
    """A data set of 40 images whose third class is in one of five; everything by name."""
    if not (folder / "images").exists():
        data_set(folder, [2 if i % 5 == 0 else i % 2 for i in range(40)])
    folders = {"images": str(folder / "images"), "masks": str(folder / "masks")}
    checked = check_data(DataSettings(**{**folders, **values}))
    return {split: [sample.name for sample in members] for split, members in checked.splits.items()}, checked


def test_validation_and_test_stay_whole_and_the_training_images_are_noted(tmp_path):
    everything, whole = check(tmp_path)
    few, checked = check(tmp_path, train_images=3)
    assert (few["val"], few["test"]) == (everything["val"], everything["test"])
    assert len(few["train"]) == 3 and set(few["train"]) < set(everything["train"])
    assert few["train"] == sorted(few["train"])
    assert checked.labels == whole.labels
    assert f"training on 3 of {len(everything['train'])} images" in checked.notes
    assert not any(note.startswith("training on") for note in whole.notes)


def test_shots_and_fractions_are_nested_and_every_class_is_there_as_soon_as_it_fits(tmp_path):
    parts = [
        set(check(tmp_path, **values)[0]["train"]) for values in ({"train_images": 1}, {"train_fraction": 0.2}, {})
    ]
    assert len(parts[0]) == 1 and parts[0] < parts[1] < parts[2]
    _, checked = check(tmp_path, train_images=3)
    assert not any("no mask of the train split" in note for note in checked.notes)
    _, checked = check(tmp_path, train_images=2)
    assert any("1 class is in no mask of the train split" in note for note in checked.notes)


def test_the_subset_follows_the_split_seed_unless_it_has_its_own(tmp_path):
    names = {
        (split_seed, subset_seed): tuple(
            check(tmp_path, train_images=8, val_fraction=0, test_fraction=0, split_seed=split_seed, **own)[0]["train"]
        )
        for split_seed in (0, 1)
        for subset_seed in (None, 0, 1)
        for own in ({} if subset_seed is None else {"subset_seed": subset_seed},)
    }
    assert names[0, None] == names[0, 0] == names[1, 0] != names[0, 1] == names[1, 1] == names[1, None]


def test_splits_given_by_a_csv_file_are_honoured(tmp_path):
    check(tmp_path)
    splits = ["test", "val", "train", "train"] * 10
    rows = [f"images/s{i:02d}.png,masks/s{i:02d}.png,{split}" for i, split in enumerate(splits)]
    (tmp_path / "list.csv").write_text("\n".join(["image,mask,split", *rows]))
    few, _ = check(tmp_path, images=str(tmp_path / "list.csv"), masks=None, train_fraction=0.25)
    assert [len(few[split]) for split in ("train", "val", "test")] == [5, 10, 10]
    assert all(splits[int(name[1:])] == "train" for name in few["train"])


def test_more_images_than_there_are_are_refused_before_any_is_decoded(tmp_path):
    check(tmp_path)
    (tmp_path / "images" / "s00.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="train_images=99, but the train split has only 28 images"):
        check(tmp_path, train_images=99)


def test_equal_images_in_a_part_that_is_not_used_are_no_leak(tmp_path):
    everything, _ = check(tmp_path)
    few, _ = check(tmp_path, train_images=3)
    left_out = next(name for name in everything["train"] if name not in few["train"])
    (tmp_path / "images" / f"{left_out}.png").write_bytes(
        (tmp_path / "images" / f"{everything['test'][0]}.png").read_bytes()
    )
    assert any("in several splits" in note for note in check(tmp_path)[1].notes)
    assert not any("in several splits" in note for note in check(tmp_path, train_images=3)[1].notes)
