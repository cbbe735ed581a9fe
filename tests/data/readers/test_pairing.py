import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlora.data.readers.pairing import find_images, find_samples, pair_by_stem
from convlora.errors import PairingError, SettingsError

NAMES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "\u00e9", "e\u0301", "a.b"]), st.sampled_from([".png", ".JPG", ".tif"])),
    unique=True,
    max_size=12,
)


def folders(tmp_path, images, masks):
    for folder, names in (("images", images), ("masks", masks)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    return str(tmp_path / "images"), str(tmp_path / "masks")


@given(images=NAMES, masks=NAMES)
def test_pairs_and_reported_files_are_all_files(images, masks):
    image_files = [Path("i") / (stem + suffix) for stem, suffix in images]
    mask_files = [Path("m") / (stem + suffix) for stem, suffix in masks]
    pairing = pair_by_stem(image_files, mask_files)
    seen = [*pairing.images_alone, *pairing.masks_alone, *pairing.ambiguous]
    for sample in pairing.samples:
        seen += [sample.image, sample.mask]
        stems = [unicodedata.normalize("NFC", path.stem) for path in (sample.image, sample.mask)]
        assert stems == [sample.name] * 2
    assert sorted(seen) == sorted(image_files + mask_files)
    assert [s.name for s in pairing.samples] == sorted({s.name for s in pairing.samples})


def test_files_pair_by_stem_sorted_whatever_suffix_case_and_unicode_form(tmp_path):
    images, masks = folders(tmp_path, ["b.JPG", "a.1.png", "\u00e9.tif"], ["a.1.PNG", "e\u0301.png", "b.png"])
    samples = find_samples(images, masks)
    assert [sample.name for sample in samples] == ["a.1", "b", "\u00e9"]
    assert [sample.mask.name for sample in samples] == ["a.1.PNG", "b.png", "e\u0301.png"]
    assert all(sample.split is None for sample in samples)


def test_hidden_and_other_files_are_left_out(tmp_path):
    images, masks = folders(tmp_path, ["a.png", ".b.png", "._a.png", "Thumbs.db", "notes.txt"], ["a.png", ".DS_Store"])
    assert [sample.name for sample in find_samples(images, masks)] == ["a"]


def test_one_error_reports_every_problem(tmp_path):
    images, masks = folders(
        tmp_path, ["a.png", "b.png", "c.png", "d.png", "e.png", "f.png", "f.jpg"], ["a.png", "f.png", "x.png"]
    )
    with pytest.raises(PairingError) as caught:
        find_samples(images, masks)
    message = str(caught.value)
    assert "1 pairs among 7 images" in message and "3 masks" in message
    assert "4 images without a mask (b.png, c.png, d.png and 1 more)" in message
    assert "1 mask without an image (x.png)" in message
    assert "3 files that share a name (f.jpg, f.png, f.png)" in message


def test_names_that_never_match_are_shown_side_by_side(tmp_path):
    images, masks = folders(tmp_path, ["a.png"], ["a_mask.png"])
    with pytest.raises(
        PairingError, match=r"must equal its image's up to the suffix, but compare a\.png with a_mask\.png"
    ):
        find_samples(images, masks)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "it holds nothing"),
        (["a.npy", "b.npy", "c.txt", "d"], r"it holds 2 \.npy, 1 \.txt, 1 no suffix"),
        (["below/"], "it holds 1 folders. Files in folders below it are not searched"),
    ],
)
def test_a_folder_without_images_tells_what_it_holds(tmp_path, names, message):
    images, masks = folders(tmp_path, [name for name in names if name[-1] != "/"], ["a.png"])
    for name in names:
        if name.endswith("/"):
            (tmp_path / "images" / name).mkdir()
    for call in (lambda: find_samples(images, masks), lambda: find_images(images)):
        with pytest.raises(PairingError, match=f"images: .* has no image files .*{message}"):
            call()


def test_wrong_places_are_refused(tmp_path):
    images, masks = folders(tmp_path, ["a.png"], ["a.png"])
    with pytest.raises(PairingError, match=r"masks: .*none does not exist"):
        find_samples(images, str(tmp_path / "none"))
    with pytest.raises(PairingError, match=r"images: .*a\.png is a file; give a folder"):
        find_samples(images + "/a.png", masks)
    with pytest.raises(PairingError, match="are the same folder"):
        find_samples(images, images + "/../images")
    with pytest.raises(SettingsError, match="masks is missing"):
        find_samples(images, None)
    with pytest.raises(SettingsError, match="lists the masks already; leave it out"):
        find_samples("list.csv", masks)


def test_images_to_predict_are_a_folder_or_one_file(tmp_path):
    images, _ = folders(tmp_path, ["b.png", "a.jpg"], [])
    assert [(s.name, s.image.name, s.mask) for s in find_images(images)] == [("a", "a.jpg", None), ("b", "b.png", None)]
    assert [s.name for s in find_images(images + "/b.png")] == ["b"]
    with pytest.raises(PairingError, match="none does not exist"):
        find_images(str(tmp_path / "none"))


def test_images_to_predict_of_one_stem_keep_different_names(tmp_path):
    images, _ = folders(tmp_path, ["a.png", "a.jpg", "b.png"], [])
    names = [sample.name for sample in find_images(images)]
    assert names == ["a.jpg", "a.png", "b.png"] and len(np.unique(names)) == 3
