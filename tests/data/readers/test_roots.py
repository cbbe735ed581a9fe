import numpy as np
import pytest

from convlora.data.readers.finding import find_data
from convlora.data.samples import SPLITS
from convlora.data.settings import DataSettings
from convlora.errors import SettingsError
from tests.data.files import data_set, noise, save

HALF = np.repeat([[0, 255]], 24, axis=0).reshape(6, 8).astype(np.uint8)


def found(root):
    return find_data(DataSettings(images=str(root)))


def pair(images, masks, name):
    save(images / f"{name}.png", noise(6, 8))
    save(masks / f"{name}.png", HALF)


def names(data):
    return [(sample.name, sample.split) for sample in data.samples]


def test_images_and_masks_below_the_folder_that_is_given_are_found_and_told(tmp_path):
    folders = data_set(tmp_path, [HALF] * 3)
    (tmp_path / "samples.csv").touch()
    data = found(tmp_path)
    assert data.samples == find_data(DataSettings(**folders)).samples
    assert data.notes[0] == f"images and masks: {folders['images']} with {folders['masks']}"
    assert data.notes[1].startswith(f"{tmp_path / 'samples.csv'} is not read; if it lists masks or splits, give it")


@pytest.mark.parametrize("way", ["train/images", "images/train"])
def test_splits_are_those_of_the_folders_however_they_are_nested(tmp_path, way):
    for split, written in zip(SPLITS, ("train", "Validation", "test"), strict=True):
        parts = [way.replace("train", written).replace("images", part) for part in ("images", "Masks")]
        for name in ("a", split):
            pair(*(tmp_path / part for part in parts), name)
    data = found(tmp_path)
    assert names(data) == sorted((f"{split}/{name}", split) for split in SPLITS for name in ("a", split))
    for sample in data.samples:
        images, masks = str(sample.image.parent), str(sample.mask.parent)
        assert images.replace("images", "Masks") == masks and sample.image.name == sample.mask.name


def test_names_that_do_not_repeat_stay_and_images_without_masks_are_told(tmp_path):
    for split in ("train", "val"):
        pair(tmp_path / split / "images", tmp_path / split / "masks", f"of_{split}")
    save(tmp_path / "test" / "images" / "secret.png", noise(6, 8))
    data = found(tmp_path)
    assert names(data) == [("of_train", "train"), ("of_val", "val")]
    assert data.notes[-1] == f"{tmp_path / 'test' / 'images'} has no masks beside it and is left out"


def test_what_could_be_meant_in_two_ways_is_not_guessed(tmp_path):
    data_set(tmp_path, [HALF] * 3)
    (tmp_path / "labels").mkdir()
    with pytest.raises(SettingsError, match="masks is missing"):
        found(tmp_path)
    (tmp_path / "labels").rmdir()
    data_set(tmp_path / "train", [HALF] * 3)
    with pytest.raises(SettingsError, match="masks is missing"):
        found(tmp_path)


def test_outlines_of_yolo_in_a_folder_called_labels_are_no_masks(tmp_path):
    save(tmp_path / "images" / "a.png", noise(6, 8))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0 0 1 0 1 1\n")
    assert found(tmp_path).notes[0].startswith("read as yolo")


def test_masks_for_one_split_alone_are_split_anew_so_that_some_images_validate(tmp_path):
    for number in range(8):
        pair(tmp_path / "train" / "images", tmp_path / "train" / "masks", f"{number}")
    save(tmp_path / "test" / "images" / "secret.png", noise(6, 8))
    data = found(tmp_path)
    assert [split for _, split in names(data)] == [None] * 8
    assert data.notes[-1] == "all images are of the split train, so they are split anew"


def test_two_folders_for_one_split_are_not_guessed_between(tmp_path):
    for split in ("train", "val", "valid"):
        pair(tmp_path / split / "images", tmp_path / split / "masks", f"of_{split}")
    with pytest.raises(SettingsError, match="masks is missing"):
        found(tmp_path)


def test_images_in_no_folder_that_is_read_are_told(tmp_path):
    for split in ("train", "val"):
        pair(tmp_path / "images" / split, tmp_path / "masks" / split, f"of_{split}")
    pair(tmp_path / "images", tmp_path / "masks", "loose")
    assert "left out 2 image files in other folders: images/loose.png, masks/loose.png" in found(tmp_path).notes
