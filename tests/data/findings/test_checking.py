import shutil
import threading

import numpy as np
import pytest

from convlora.checking.settings import CheckSettings
from convlora.data.augmentation.settings import AugmentationSettings
from convlora.data.findings.checking import check_data
from convlora.data.pixels.masks import LabelFormat
from convlora.data.settings import DataSettings
from convlora.errors import DataError, MaskError, SettingsError
from tests.data.files import data_set, noise, save

HALF = np.repeat([[0, 255]], 24, axis=0).repeat(1, axis=1).reshape(6, 8).astype(np.uint8)


def check(tmp_path, masks, labels=None, progress=None, **values):
    folders = data_set(tmp_path, masks)
    return check_data(DataSettings(**folders, **values), labels=labels, progress=progress)


def having(notes, part):
    return [note for note in notes if part in note]


def test_figures_equal_those_counted_with_numpy(tmp_path):
    masks = [np.random.default_rng(i).choice([0, 1, 2, 255], (5 + i, 9)).astype(np.uint8) for i in range(7)]
    masks[3][:] = 0
    checked = check(tmp_path, masks)
    joined = np.concatenate([mask.ravel() for mask in masks])
    assert checked.class_pixels == tuple((joined == i).sum() for i in range(3))
    assert checked.images_per_class == tuple(sum((mask == i).any() for mask in masks) for i in range(3))
    assert checked.ignored_pixels == (joined == 255).sum()
    assert (checked.smallest, checked.largest) == ((5, 9), (11, 9))
    assert [len(checked.splits[key]) for key in ("train", "val", "test")] == [5, 1, 1]
    assert checked.labels == LabelFormat(("background", "class 1", "class 2"))
    assert having(checked.notes, "255 is ignored (--ignore_index)")
    assert having(checked.notes, "1 of 7 masks hold background only: s03")


def test_progress_counts_up_in_the_callers_thread(tmp_path):
    calls = []
    check(tmp_path, [HALF] * 5, progress=lambda done, total: calls.append((done, total, threading.current_thread())))
    assert calls == [(i, 5, threading.main_thread()) for i in range(1, 6)]


def test_an_error_in_progress_ends_the_check(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(tmp_path, [HALF] * 5, progress=stop)


def test_all_problems_are_reported_in_one_line(tmp_path):
    folders = data_set(tmp_path, [HALF] * 8)
    (tmp_path / "images/s00.png").write_bytes(b"nothing")
    save(tmp_path / "masks/s01.png", HALF[:5])
    save(tmp_path / "masks/s02.png", noise(6, 8))
    save(tmp_path / "masks/s03.png", np.full((6, 8), 9, dtype=np.uint8))
    with pytest.raises(DataError) as caught:
        check_data(DataSettings(**folders))
    message = str(caught.value)
    assert message.startswith("4 problems: ") and "\n" not in message
    for part in ("s00.png: not a PNG", "s01.png: 5 x 8 pixels", "s02.png: a mask in colour", "values 0, 9"):
        assert part in message
    for i in range(3, 8):
        (tmp_path / f"images/s{i:02d}.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"^8 problems: .* \(and 3 more\)\.$"):
        check_data(DataSettings(**folders))


def test_a_single_problem_is_told_as_it_is(tmp_path):
    with pytest.raises(DataError, match=r"^masks hold the values 0, 128"):
        check(tmp_path, [HALF // 2 + HALF % 2] * 4)


def test_wrong_settings_are_told(tmp_path):
    with pytest.raises(SettingsError, match="mask_format='x' must be"):
        check(tmp_path, [HALF] * 4, mask_format="x")
    with pytest.raises(SettingsError, match="masks is missing"):
        check_data(DataSettings(images=str(tmp_path / "images")))


def test_the_limit_of_megapixels_holds(tmp_path):
    with pytest.raises(DataError, match=r"^4 problems: .* more than the 4e-05 allowed"):
        check(tmp_path, [HALF] * 4, max_megapixels=40e-6)


def test_odd_masks_and_unseen_classes_are_told(tmp_path):
    checked = check(tmp_path, [255, 255, 0, 1, 1, 1], classes=["ground", "tree", "car"])
    assert having(checked.notes, "2 of 6 masks are ignored throughout: s00, s01")
    assert having(checked.notes, "1 of 6 masks hold background only: s02")
    assert having(checked.notes, "1 of 3 classes are in no mask: car")


def test_a_class_that_is_only_in_other_splits_is_told(tmp_path):
    data_set(tmp_path, [0, 1, 2])
    rows = ["image,mask,split"] + [
        f"images/s{i:02d}.png,masks/s{i:02d}.png,{split}" for i, split in enumerate(("train", "train", "test"))
    ]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    checked = check_data(DataSettings(images=str(tmp_path / "list.csv")))
    assert having(checked.notes, "1 class is in no mask of the train split: class 2")
    assert [sample.name for sample in checked.splits["test"]] == ["s02"]


def test_equal_images_in_different_splits_are_told_and_in_one_split_are_not(tmp_path):
    folders = data_set(tmp_path, [HALF] * 4)
    shutil.copy(tmp_path / "images/s00.png", tmp_path / "images/s03.png")
    quiet = check_data(DataSettings(**folders, val_fraction=0, test_fraction=0))
    assert not having(quiet.notes, "several splits")
    rows = ["image,mask,split"] + [
        f"images/s{i:02d}.png,masks/s{i:02d}.png,{split}" for i, split in enumerate(("train", "train", "val", "test"))
    ]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    checked = check_data(DataSettings(images=str(tmp_path / "list.csv")))
    assert having(checked.notes, "1 image is in several splits under different names, so scores come out too good: s00")


def test_the_classes_of_a_model_take_both_binary_encodings(tmp_path):
    labels = LabelFormat(("background", "polyp"), "ids")
    checked = check(tmp_path, [HALF] * 3, labels=labels, classes=["other"])
    assert checked.labels == LabelFormat(("background", "polyp"), "binary")
    assert having(checked.notes, "--mask_format binary")
    assert checked.class_pixels == (72, 72)
    shutil.rmtree(tmp_path / "masks")
    back = check(tmp_path, [HALF // 255] * 3, labels=checked.labels)
    assert back.labels == labels and back.class_pixels == (72, 72)


def test_masks_that_do_not_fit_the_classes_of_a_model_are_refused(tmp_path):
    labels = LabelFormat(("background", "polyp"), "binary")
    with pytest.raises((DataError, MaskError), match=r"values 2 in 1 of 3 masks are not among"):
        check(tmp_path, [0, 1, 2], labels=labels)


def test_a_model_is_evaluated_on_data_without_a_train_split(tmp_path):
    data_set(tmp_path, [HALF])
    (tmp_path / "list.csv").write_text("image,mask,split\nimages/s00.png,masks/s00.png,test\n")
    settings = DataSettings(images=str(tmp_path / "list.csv"))
    checked = check_data(settings, labels=LabelFormat(("background", "polyp")))
    assert len(checked.splits["test"]) == 1 and not having(checked.notes, "train")
    with pytest.raises(DataError, match="none of the 1 images has the split train"):
        check_data(settings)


def test_values_of_any_size_are_counted(tmp_path):
    folders = data_set(tmp_path, [HALF] * 3)
    save(tmp_path / "masks/s00.png", np.arange(48, dtype=np.uint16).reshape(6, 8) * 1300)
    save(tmp_path / "masks/s01.tif", np.array([[-1, 70_000]] * 24, dtype=np.int32).reshape(6, 8))
    (tmp_path / "masks/s01.png").unlink()
    with pytest.raises(DataError, match=r"values -1, 0, 255, 1300, .*… 70000 \(51 different\)"):
        check_data(DataSettings(**folders, ignore_index=254))


def test_splits_that_were_drawn_without_objects_are_to_be_drawn_again(tmp_path):
    folders = data_set(tmp_path, [HALF] * 20)
    drawn = check_data(DataSettings(**folders)).splits
    for sample in drawn["test"]:
        save(sample.mask, HALF * 0)
    (finding,) = check_data(DataSettings(**folders)).findings
    assert (finding.kind, finding.harm) == ("no-foreground", "harmful")
    assert finding.remedy == "Draw other splits with --split_seed 1, 2 …, or a larger one with --test_fraction."
    assert check_data(DataSettings(**folders, split_seed=1)).findings == []


def test_another_brightness_that_augmentation_makes_anyway_is_no_finding(tmp_path):
    split = {"train": 100, "val": 118, "test": 100}
    rows = ["image,mask,split"]
    for name, grey in split.items():
        for i in range(8):
            save(tmp_path / f"{name}{i}.png", (noise(6, 8, seed=i) // 8 + grey).astype(np.uint8))
            save(tmp_path / f"{name}{i}_mask.png", HALF)
            rows.append(f"{name}{i}.png,{name}{i}_mask.png,{name}")
    (tmp_path / "samples.csv").write_text("\n".join(rows))
    told = check_data(DataSettings(images=str(tmp_path / "samples.csv"))).findings
    assert "brightness" in {finding.kind for finding in told}
    for wide, kinds in ((0.3, set()), (0.05, {"brightness"})):
        settings = CheckSettings(
            images=str(tmp_path / "samples.csv"), augmentation=AugmentationSettings(brightness=wide)
        )
        assert {finding.kind for finding in check_data(settings).findings} & {"brightness"} == kinds
