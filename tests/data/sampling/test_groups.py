"""What belongs together never crosses from one split to another, whatever folds and few-shot parts are combined."""

from collections import Counter
from itertools import chain
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

from convlora.data.labels.format import LabelFormat
from convlora.data.samples import Sample
from convlora.data.sampling.splitting import split_samples
from convlora.data.sampling.subsets import choose_subset, subset_size
from convlora.data.settings import DataSettings

LABELS = LabelFormat(("background", "a", "b", "c"), "ids", 255)
PATIENTS = st.lists(st.sampled_from("ABCDEFGHIJ"), min_size=14, max_size=45)
PARTS = st.sampled_from(
    [{}, {"train_fraction": 0.3}, {"train_images": 2}, *({"train_images_per_class": n} for n in (1, 3))]
)
SPLITS = st.sampled_from([{}, {"val_fraction": 0.4}, *({"folds": 4, "fold": fold} for fold in range(4))])


@given(PATIENTS, st.booleans(), SPLITS, PARTS, st.integers(0, 3), st.data())
def test_no_patient_is_in_two_splits_and_a_part_of_the_training_images_moves_no_other(
    patients, by_name, splitting, part, seed, data
):
    assume(len(set(patients)) >= 6)
    samples = [Sample(f"{p}_{i:02}", Path(f"{i}.png"), group=None if by_name else p) for i, p in enumerate(patients)]
    held = {s.name: data.draw(st.frozensets(st.sampled_from([1, 2, 3, 255]))) for s in samples}
    pattern = r"^([A-Z])_" if by_name else None
    settings = DataSettings(images="x", group=pattern, split_seed=seed, **splitting, **part)
    splits = split_samples(samples, settings)
    names = {split: [sample.name for sample in members] for split, members in splits.items()}
    assert sorted(chain.from_iterable(names.values())) == sorted(held)
    assert all(names.values())
    patients_of = [{name[0] for name in members} for members in names.values()]
    assert sum(map(len, patients_of)) == len(set(patients))

    counts = {name: Counter({0: 50, **dict.fromkeys(held[name], 3)}) for name in names["train"]}
    present = set().union(*(held[name] for name in names["train"])) - {255}
    each = part.get("train_images_per_class")
    assume(present or each is None)
    chosen, notes = choose_subset(counts, subset_size(len(counts), settings), LABELS, settings)
    assert chosen <= set(names["train"]) and chosen
    if each is not None:
        for c in present:
            there = sum(c in held[name] for name in names["train"])
            assert sum(c in held[name] for name in chosen) >= min(each, there)
            assert (f"{LABELS.classes[c]} (" in notes[0]) == (there < each)
        assert len(chosen) <= each * len(present)
    elif "train_images" in part:
        assert len(chosen) == 2


@given(PATIENTS, st.integers(2, 5), st.integers(0, 3))
def test_the_folds_test_each_patient_exactly_once(patients, folds, seed):
    assume(len(set(patients)) >= folds + 2)
    samples = [Sample(f"{p}_{i:02}", Path(f"{i}.png")) for i, p in enumerate(patients)]
    tested = []
    for fold in range(folds):
        settings = DataSettings(images="x", group="^(.)", folds=folds, fold=fold, split_seed=seed)
        tested += {sample.name[0] for sample in split_samples(samples, settings)["test"]}
    assert sorted(tested) == sorted(set(patients))
