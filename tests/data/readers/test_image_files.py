from pathlib import PurePosixPath

import pytest

from convlora.data.readers.annotated import sample_names, settle_splits, split_of
from convlora.data.readers.image_files import ImageIndex
from convlora.data.samples import Sample
from convlora.errors import PairingError
from tests.data.readers.drawing import write_image


def tree(root, *names):
    for name in names:
        write_image(root / name, 2, 2)
    return ImageIndex(root)


def find(index, *names, near=""):
    return [str(place) if place else None for place in index.find_all(names, [near] * len(names))]


def test_names_are_compared_with_the_files_there_and_never_opened(tmp_path):
    index = tree(tmp_path / "in", "a.jpg", "x/b.PNG", ".hidden/c.jpg", "x/.d.jpg")
    write_image(tmp_path / "secret.png")
    assert [str(file) for file in index.files] == ["a.jpg", "x/b.PNG"]
    assert find(index, "a.jpg", "x/b.PNG", r"C:\data\x\b.PNG", "/data/a.jpg", "./a.jpg") == [
        "a.jpg", "x/b.PNG", "x/b.PNG", "a.jpg", "a.jpg",
    ]  # fmt: skip
    assert find(index, "../secret.png", str(tmp_path / "secret.png"), "", "..", "b.png") == [None] * 5


def test_the_same_name_in_another_folder_is_not_taken(tmp_path):
    index = tree(tmp_path, "p1/1.png", "p1/2.png", "p3/3.png")
    assert find(index, "p1/1.png", "p2/1.png", "p2/2.png", "p2/3.png") == ["p1/1.png", None, "p1/2.png", "p3/3.png"]


def test_of_several_files_the_one_near_counts_and_else_none_is_guessed(tmp_path):
    index = tree(tmp_path, "train/a.jpg", "valid/a.jpg", "a/b.jpg", "b.jpg", "x/a/b.jpg")
    assert find(index, "a.jpg", near="valid") == ["valid/a.jpg"]
    assert find(index, "x/a/b.jpg", "/elsewhere/x/a/b.jpg") == ["x/a/b.jpg"] * 2
    with pytest.raises(PairingError, match=r"a.jpg: 2 files in .* have this name: train/a.jpg, valid/a.jpg"):
        find(index, "a.jpg")


def test_unicode_forms_are_the_same_name(tmp_path):
    index = tree(tmp_path, "caf\u00e9.png")
    assert find(index, "cafe\u0301.png") == ["caf\u00e9.png"]


def test_links_in_circles_end(tmp_path):
    write_image(tmp_path / "in/a.png")
    (tmp_path / "in/again").symlink_to(tmp_path / "in")
    assert [str(file) for file in ImageIndex(tmp_path / "in").files] == ["a.png"]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(PairingError, match="has no image files"):
        ImageIndex(tmp_path)
    with pytest.raises(PairingError, match="does not exist"):
        ImageIndex(tmp_path / "none")


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["x/a.jpg", "y/b.jpg"], ["a", "b"]),
        (["x/a.jpg", "y/a.jpg"], ["x/a", "y/a"]),
        (["x/a.jpg", "x/a.png"], ["x/a.jpg", "x/a.png"]),
    ],
)
def test_names_of_samples_differ(files, names):
    assert sample_names([PurePosixPath(file) for file in files]) == names


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("instances_train2017", "train"),
        ("valid", "val"),
        ("validation_set", "val"),
        ("my-test", "test"),
        ("trainval", None),
        ("constrain", None),
        ("Train", "train"),
        ("images/val", "val"),
    ],
)
def test_words_that_name_a_split(text, split):
    assert split_of(text) == split and split_of("", text) == split


def test_splits_count_if_all_images_have_one_and_there_are_two(tmp_path):
    def settle(*splits):
        samples, notes = settle_splits([Sample(str(i), tmp_path, tmp_path, s) for i, s in enumerate(splits)])
        return [sample.split for sample in samples], notes

    assert settle("val", "train", "train") == (["val", "train", "train"], ["split as the files say: 2 train, 1 val"])
    assert settle("train", "train") == ([None, None], ["all images are of the split train, so they are split anew"])
    assert settle("train", None, "val") == ([None] * 3, ["1 of 3 images have no split, so all are split anew"])
    assert settle(None, None) == ([None, None], [])
