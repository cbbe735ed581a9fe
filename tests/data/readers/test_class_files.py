import numpy as np
import pytest

from convlora.data.findings.checking import check_data
from convlora.data.labels.bits import IGNORED, pack
from convlora.data.pixels.masks import read_mask
from convlora.data.readers.finding import find_data
from convlora.data.settings import DataSettings
from convlora.errors import DataError, PairingError, SettingsError
from tests.data.files import noise, save

NAMES = ["background", "leaf", "big stem"]


def settings(folder, pattern, masks="masks", **values):
    places = {"images": str(folder / "images"), "masks": str(folder / masks) if masks else None}
    values = {"classes": NAMES, "val_fraction": 0, "test_fraction": 0, **values}
    return DataSettings(**places, mask_pattern=pattern, **values)


def write(folder, name, files, size=(6, 8), where="masks/{stem}_{class}.png"):
    """An image and the masks of some classes."""
    save(folder / "images" / f"{name}.png", noise(*size, seed=len(name)))
    for class_name, values in files.items():
        save(folder / where.replace("{stem}", name).replace("{class}", class_name), values)


def shapes(seed=0):
    left, right = np.zeros((6, 8), dtype=bool), np.zeros((6, 8), dtype=bool)
    left[:, :3], right[1:4, 5:] = True, True
    return np.roll(left, seed, 0), np.roll(right, seed, 0)


def test_each_class_has_a_file_and_may_be_absent(tmp_path):
    left, right = shapes()
    write(tmp_path, "a", {"leaf": left, "big stem": right * np.uint8(255)})
    write(tmp_path, "b", {"big stem": right * np.uint8(1)})
    write(tmp_path, "c", {})
    checked = check_data(settings(tmp_path, "{stem}_{class}.png"))
    assert checked.labels.classes == tuple(NAMES) and not checked.labels.multilabel
    assert checked.class_pixels == (3 * 48 - 18 - 18, 18, 18)
    assert "1 of 3 images without masks are background only: c.png" in checked.notes
    np.testing.assert_array_equal(read_mask(checked.splits["train"][0].mask), left + 2 * right)


@pytest.mark.parametrize("where", ["masks/{class}/{stem}.png", "masks/{stem}/{class}.png", "images/{stem}.{class}.png"])
def test_the_pattern_may_be_of_folders_or_beside_the_images(tmp_path, where):
    left, right = shapes()
    for name in ("a", "b"):
        write(tmp_path, name, {"leaf": left, "big stem": right}, where=where)
    inside = where.startswith("masks")
    found = find_data(settings(tmp_path, where.partition("/")[2], masks="masks" if inside else None))
    assert [sample.name for sample in found.samples] == ["a", "b"]
    np.testing.assert_array_equal(read_mask(found.samples[1].mask), left + 2 * right)


def test_classes_that_overlap_are_bit_fields_or_an_error(tmp_path):
    left, right = shapes()
    right[:, 2] = True
    write(tmp_path, "a", {"leaf": left * np.uint8(255), "big stem": right * np.uint8(255)})
    with pytest.raises(DataError, match=r"classes overlap in 6 of 48 pixels \(12 %\)\. Say --task multilabel"):
        check_data(settings(tmp_path, "{stem}_{class}.png"))
    found = find_data(settings(tmp_path, "{stem}_{class}.png", task="multilabel"))
    np.testing.assert_array_equal(read_mask(found.samples[0].mask), pack([left, right]))
    ignored = left * np.uint8(1)
    ignored[0, 0] = 7
    save(tmp_path / "masks" / "a_leaf.png", ignored)
    save(tmp_path / "masks" / "a_big stem.png", right * np.uint8(1))
    found = find_data(settings(tmp_path, "{stem}_{class}.png", task="multilabel", ignore_index=7))
    values = read_mask(found.samples[0].mask)
    assert values[0, 0] == IGNORED and values[1, 0] == 1


def test_every_file_is_accounted_for(tmp_path):
    left, right = shapes()
    write(tmp_path, "a", {"leaf": left, "big stem": right, "root": left})
    with pytest.raises(
        PairingError, match=r"1 of 3 files in .*masks are the mask of no image and class \(a_root\.png\)"
    ):
        find_data(settings(tmp_path, "{stem}_{class}.png"))
    (tmp_path / "masks" / "a_root.png").unlink()
    with pytest.raises(PairingError, match=r"are the mask of no image and class \(a_big stem\.png, a_leaf\.png\)"):
        find_data(settings(tmp_path, "{stem}-{class}.png"))
    with pytest.raises(SettingsError, match="needs the names of the classes"):
        find_data(settings(tmp_path, "{stem}_{class}.png", classes=None))
    save(tmp_path / "masks" / "a_leaf.tif", left)
    with pytest.raises(PairingError, match="several files are its mask of one class"):
        find_data(settings(tmp_path, "{stem}_{class}"))


@pytest.mark.parametrize("where", ["images/{stem}_{class}.png", "images/{class}_{stem}.png"])
def test_masks_of_a_class_that_is_not_named_are_no_images_without_masks(tmp_path, where):
    left, right = shapes()
    for name in ("7", "8"):
        write(tmp_path, name, {"leaf": left, "root": right}, where=where)
    write(tmp_path, "9", {}, where=where)
    pattern = where.partition("/")[2]
    with pytest.raises(PairingError, match=r"2 of 7 files .* are the mask of no image and class .*root"):
        find_data(settings(tmp_path, pattern, masks=None, classes=["background", "leaf"]))
    found = find_data(settings(tmp_path, pattern, masks=None, classes=["background", "leaf", "root"]))
    assert [sample.name for sample in found.samples] == ["7", "8", "9"]


@pytest.mark.parametrize("masks", [None, "masks"])
def test_files_that_are_no_images_by_the_pattern_of_images_are_not_passed_over(tmp_path, masks):
    left, _ = shapes()
    for name in ("img_1", "img_2"):
        save(tmp_path / "images" / f"{name}.png", noise(6, 8))
        save(tmp_path / (masks or "images") / f"{name[4:]}_leaf.png", left)
    save(tmp_path / "images" / "photo.png", noise(6, 8))
    with pytest.raises(PairingError, match=r"1 of \d files in .*images fit neither pattern \(photo\.png\)"):
        find_data(settings(tmp_path, "{stem}_{class}.png", masks=masks, image_pattern="img_{stem}.png"))


def test_names_in_which_stem_and_class_could_be_parted_in_two_ways_go_to_one_image_or_none(tmp_path):
    left, right = shapes()
    write(tmp_path, "a", {"b_leaf": left})
    write(tmp_path, "a_b", {"big stem": right})
    with pytest.raises(PairingError, match=r"a_b_leaf\.png would be the mask of a\.png and of a_b\.png"):
        find_data(settings(tmp_path, "{stem}_{class}.png", classes=["background", "leaf", "b_leaf", "big stem"]))


def test_files_of_one_image_have_one_size_and_one_value(tmp_path):
    left, right = shapes()
    write(tmp_path, "a", {"leaf": left, "big stem": right[:4]})
    with pytest.raises(DataError, match=r"a_big stem\.png: 4 x 8 pixels .* but .*a_leaf\.png has 6 x 8"):
        check_data(settings(tmp_path, "{stem}_{class}.png"))
    save(tmp_path / "masks" / "a_big stem.png", np.arange(48, dtype=np.uint8).reshape(6, 8))
    with pytest.raises(DataError, match=r"holds 1, 2, 3, .* beside 0, but one value says where the class is"):
        check_data(settings(tmp_path, "{stem}_{class}.png"))
