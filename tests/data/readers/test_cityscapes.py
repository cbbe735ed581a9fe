import numpy as np
import pytest

from convlora.data.pixels.masks import read_mask
from convlora.data.readers.cityscapes import CLASSES
from convlora.errors import DataError, PairingError
from tests.data.files import save
from tests.data.readers.drawing import found, write_image

IDS = np.arange(34, dtype=np.uint8).reshape(2, 17)
FRAMES = ("train/ulm/ulm_000001_000019", "train/bochum/bochum_000000_000600", "val/lindau/lindau_000001_000019")


def write(root, frames=FRAMES, kind="labelIds", values=IDS, folder="gtFine"):
    for i, frame in enumerate(frames):
        write_image(root / f"leftImg8bit/{frame}_leftImg8bit.png", *values.shape, seed=i)
        save(root / f"{folder}/{frame}_{folder}_{kind}.png", values)
        save(root / f"{folder}/{frame}_{folder}_color.png", np.zeros((*values.shape, 3), dtype=np.uint8))
    return root


def decoded(data, i=0):
    mask = data.samples[i].mask
    return data.labels.decode(read_mask(mask), mask)


def test_label_ids_become_the_nineteen_classes_of_the_evaluation(tmp_path):
    data = found(write(tmp_path))
    assert [(s.name, s.split) for s in data.samples] == [
        ("bochum_000000_000600", "train"),
        ("lindau_000001_000019", "val"),
        ("ulm_000001_000019", "train"),
    ]
    train_ids = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13}
    train_ids |= {27: 14, 28: 15, 31: 16, 32: 17, 33: 18}  # as Cityscapes' table of labels has them
    expected = np.array([train_ids[i] + 1 if i in train_ids else 255 for i in range(34)]).reshape(2, 17)
    np.testing.assert_array_equal(decoded(data), expected)
    assert data.labels.classes == ("background", *(name for name, _, _ in CLASSES))
    assert data.labels.colours[14] == (0, 0, 142)  # car
    assert "masks are the files *_labelIds.png" in " ".join(data.notes) and "3 other images" in " ".join(data.notes)


def test_train_ids_are_read_where_there_are_no_others(tmp_path):
    values = np.array([[0, 13, 18, 255]], dtype=np.uint8)
    data = found(write(tmp_path, kind="labelTrainIds", values=values))
    assert decoded(data).tolist() == [[1, 14, 19, 255]]
    assert "masks are the files *_labelTrainIds.png" in " ".join(data.notes)


def test_both_folders_may_be_named_and_masks_may_be_coarse(tmp_path):
    root = write(tmp_path, folder="gtCoarse", frames=("train_extra/ulm/ulm_1_2", "val/ulm/ulm_1_3"))
    data = found(root / "leftImg8bit", root / "gtCoarse")
    assert [(s.name, s.split) for s in data.samples] == [("ulm_1_2", "train"), ("ulm_1_3", "val")]


def test_the_published_test_masks_are_dummies_and_left_out(tmp_path):
    root = write(tmp_path)
    write(root, ["test/berlin/berlin_000000_000019"], values=np.full((2, 17), 3, dtype=np.uint8))
    data = found(root)
    assert {s.split for s in data.samples} == {"train", "val"}
    assert "left out 1 test images: their masks are dummies" in " ".join(data.notes)
    write(root, ["test/berlin/berlin_000000_000019"])  # with real ones they are used
    assert {s.split for s in found(root).samples} == {"train", "val", "test"}


def test_test_images_without_masks_are_left_out_but_others_are_refused(tmp_path):
    root = write(tmp_path)
    write_image(root / "leftImg8bit/test/berlin/berlin_0_0_leftImg8bit.png")
    assert "left out 1 test images, which have no masks" in found(root).notes
    write_image(root / "leftImg8bit/val/lindau/lindau_9_9_leftImg8bit.png")
    with pytest.raises(PairingError, match="1 images without a mask"):
        found(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: write_image(root / "leftImg8bit/train/ulm/x.png"), r"1 images not called \*_leftImg8bit"),
        (lambda root: (root / f"leftImg8bit/{FRAMES[0]}_leftImg8bit.png").unlink(), "1 masks without an image"),
        (lambda root: [path.unlink() for path in root.rglob("*_labelIds.png")], r"no files \*_labelIds\.png"),
        (
            lambda root: (root / "leftImg8bit/val").rename(root / "leftImg8bit/valid"),
            "1 images without a mask.*1 masks",
        ),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, change, message):
    root = write(tmp_path)
    change(root)
    with pytest.raises(PairingError, match=message):
        found(root)


def test_folders_that_are_no_splits_are_refused(tmp_path):
    with pytest.raises(DataError, match="the folders ulm are none of train, val, test"):
        found(write(tmp_path, ["ulm/a/ulm_1_1"]))
    with pytest.raises(PairingError, match="has no folders leftImg8bit"):
        found(tmp_path / "gtFine", format="cityscapes")
