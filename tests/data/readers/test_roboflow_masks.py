from collections import Counter

import numpy as np
import pytest
from PIL import Image

from convlora.data.sampling.splitting import split_samples
from convlora.data.settings import DataSettings
from convlora.errors import DataError, PairingError, SettingsError
from tests.data.readers.drawing import found, write_image

CLASSES = "Pixel Value, Class\n0, background\n1, cat\n2, dog\n"


def data_set(root, classes=CLASSES, splits=("train", "valid", "test")):
    for number, split in enumerate(splits):
        write_image(root / split / f"{number}_jpg.rf.00ff.jpg", 20, 30)
        mask = np.zeros((20, 30), dtype=np.uint8)
        mask[3:9, 4:8] = number
        Image.fromarray(mask).save(root / split / f"{number}_jpg.rf.00ff_mask.png")
        (root / split / "_classes.csv").write_text(classes)
    (root / "README.roboflow.txt").write_text("cats and dogs")
    return root


def test_masks_classes_and_splits_are_found_without_a_setting(tmp_path):
    data = found(data_set(tmp_path))
    assert data.labels.classes == ("background", "cat", "dog") and data.named
    assert [(s.name, s.image.parent.name, s.mask.name, s.split) for s in data.samples] == [
        ("0_jpg.rf.00ff", "train", "0_jpg.rf.00ff_mask.png", "train"),
        ("1_jpg.rf.00ff", "valid", "1_jpg.rf.00ff_mask.png", "val"),
        ("2_jpg.rf.00ff", "test", "2_jpg.rf.00ff_mask.png", "test"),
    ]
    assert data.notes[0].startswith("read as roboflow-masks: ")


def test_one_split_alone_is_split_anew(tmp_path):
    data_set(tmp_path, splits=("train",))
    assert [s.split for s in found(tmp_path / "train").samples] == [None]


def test_a_table_of_classification_is_not_taken_for_one_of_masks(tmp_path):
    data_set(tmp_path, "filename, cat, dog\n0_jpg.rf.00ff.jpg, 1, 0\n")
    with pytest.raises(SettingsError, match="masks is missing"):
        found(tmp_path)
    with pytest.raises(DataError, match=r"no _classes\.csv with the columns Pixel Value and Class"):
        found(tmp_path, format="roboflow-masks")


@pytest.mark.parametrize(
    "classes",
    ["0, background\n2, cat\n", "1, cat\n0, background\n", "0, background\n1\n", "0, background\n1, a, b\n", "x, y\n"],
)
def test_values_that_are_not_counted_from_0_are_refused(tmp_path, classes):
    with pytest.raises(DataError, match=r"_classes\.csv: its pixel values are not 0, 1, 2"):
        found(data_set(tmp_path, "Pixel Value, Class\n" + classes))


def test_what_does_not_add_up_is_told(tmp_path):
    data_set(tmp_path)
    with pytest.raises(SettingsError, match="beside the images; leave it out"):
        found(tmp_path, tmp_path / "train", format="roboflow-masks")
    (tmp_path / "test/_classes.csv").write_text(CLASSES.replace("dog", "cow"))
    with pytest.raises(DataError, match=r"train/_classes\.csv has other classes than .*test/_classes\.csv"):
        found(tmp_path)
    (tmp_path / "test/_classes.csv").write_text("Pixel Value, Class\n0, background\n")
    (tmp_path / "train/_classes.csv").unlink()
    (tmp_path / "valid/_classes.csv").unlink()
    with pytest.raises(DataError, match="names 1 classes"):
        found(tmp_path)
    data_set(tmp_path)
    (tmp_path / "train/0_jpg.rf.00ff_mask.png").unlink()
    with pytest.raises(PairingError, match="1 image without a mask"):
        found(tmp_path)


def test_altered_copies_of_one_image_stay_in_one_split(tmp_path):
    names = [f"img{image}_jpg.rf.{copy}a0f" for image in range(12) for copy in range(3)]
    for name in names:
        write_image(tmp_path / "train" / f"{name}.jpg", 6, 8)
        Image.fromarray(np.eye(6, 8, dtype=np.uint8)).save(tmp_path / "train" / f"{name}_mask.png")
    (tmp_path / "train" / "_classes.csv").write_text(CLASSES)
    data = found(tmp_path)
    assert data.notes[-1] == "36 images are copies by Roboflow (.rf.); those of one image stay in one split"
    for split in split_samples(data.samples, DataSettings(images=str(tmp_path))).values():
        counts = Counter(sample.name.partition("_")[0] for sample in split)
        assert counts and set(counts.values()) == {3}
