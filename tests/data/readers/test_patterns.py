import unicodedata
from collections import Counter
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from convlora.data.readers.finding import find_data
from convlora.data.readers.patterns import Patterns, pair_by_pattern
from convlora.data.settings import DataSettings
from convlora.errors import PairingError, SettingsError


def pairs(tmp_path, files, masks=None, images=".", **patterns):
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    found = find_data(
        DataSettings(images=str(tmp_path / images), masks=masks and str(tmp_path / masks), format="auto", **patterns)
    )
    return {
        s.name: (s.image.relative_to(tmp_path).as_posix(), s.mask.relative_to(tmp_path).as_posix())
        for s in found.samples
    }


@pytest.mark.parametrize(
    ("files", "patterns", "expected"),
    [
        (["a.jpg", "a_mask.png"], {"mask_pattern": "{stem}_mask.png"}, {"a": ("a.jpg", "a_mask.png")}),
        (["a.jpg", "a_mask.PNG"], {"mask_pattern": "{stem}_mask.png"}, {"a": ("a.jpg", "a_mask.PNG")}),
        (["a.jpg", "a_mask.tif"], {"mask_pattern": "{stem}_mask"}, {"a": ("a.jpg", "a_mask.tif")}),
        (["a.jpg", "mask_a.png"], {"mask_pattern": "mask_{stem}.png"}, {"a": ("a.jpg", "mask_a.png")}),
        (
            ["img_1.png", "seg_1.png"],
            {"mask_pattern": "seg_{stem}.png", "image_pattern": "img_{stem}.png"},
            {"img_1": ("img_1.png", "seg_1.png")},
        ),
        (
            ["p/a.png", "p/masks/a.png", "q/a.png", "q/masks/a.png"],
            {"mask_pattern": "{parent}/masks/{stem}.png"},
            {"p/a": ("p/a.png", "p/masks/a.png"), "q/a": ("q/a.png", "q/masks/a.png")},
        ),
        (
            ["p/images/a.png", "p/masks/a.png"],
            {"mask_pattern": "{parent}/../masks/{stem}.png"},
            {"a": ("p/images/a.png", "p/masks/a.png")},
        ),
        (
            ["x/images/p/a.jpg", "x/masks/p/a_m.png"],
            {"mask_pattern": "{stem}_m.png", "images": "x/images", "masks": "x/masks"},
            {"a": ("x/images/p/a.jpg", "x/masks/p/a_m.png")},
        ),
        (
            ["a.jpg", "masks/a.png"],
            {"mask_pattern": "{stem}.png", "masks": "masks"},
            {"a": ("a.jpg", "masks/a.png")},
        ),
        (["{stem}.jpg", "{stem}_m.png"], {"mask_pattern": "{stem}_m.png"}, {"{stem}": ("{stem}.jpg", "{stem}_m.png")}),
    ],
)
def test_masks_are_found_where_the_pattern_says(tmp_path, files, patterns, expected):
    assert pairs(tmp_path, files, **patterns) == expected


def test_unicode_forms_do_not_matter(tmp_path):
    one, other = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    assert list(pairs(tmp_path, [f"{one}.jpg", f"{other}_m.png"], mask_pattern="{stem}_m.png")) == [one]


@pytest.mark.parametrize(
    ("files", "patterns", "message"),
    [
        (
            ["a.jpg", "b.jpg", "a_m.png", "c_m.png"],
            {"mask_pattern": "{stem}_m.png"},
            r"1 pairs among 4 image files in \S+; 1 image without a mask \(b\.jpg\); 1 mask without an image "
            r"\(c_m\.png\); the mask of a\.jpg would be a_m\.png",
        ),
        (["a.jpg", "a.png", "a_m.png"], {"mask_pattern": "{stem}_m.png"}, "3 images and masks that fit several times"),
        (["a.jpg", "a_m.png", "a_m.tif"], {"mask_pattern": "{stem}_m"}, "3 images and masks that fit several times"),
        (
            ["i1.png", "m1.png", "x.png"],
            {"mask_pattern": "m{stem}.png", "image_pattern": "i{stem}.png"},
            r"1 file that fits neither pattern \(x\.png\)",
        ),
        (["a.jpg"], {"mask_pattern": "../../{stem}.png"}, "1 image without a mask"),
        (["a.jpg"], {"mask_pattern": "/etc/{stem}.png"}, "1 image without a mask"),
    ],
)
def test_whatever_does_not_pair_up_is_told(tmp_path, files, patterns, message):
    with pytest.raises(PairingError, match=message):
        pairs(tmp_path, files, **patterns)


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"mask_pattern": "mask.png"}, r"mask_pattern='mask\.png' must hold \{stem\}"),
        ({"mask_pattern": "{name}_{stem}.png"}, "no braces but {stem} and {parent}"),
        ({"mask_pattern": "{stem"}, "must hold"),
        ({"mask_pattern": "{stem}.png", "image_pattern": "{stem}_{stem}.png"}, "one {stem}, without folders"),
        ({"mask_pattern": "{stem}.png", "format": "csv"}, "mask_pattern is for image files in folders"),
    ],
)
def test_patterns_that_say_nothing_are_refused(tmp_path, patterns, message):
    with pytest.raises(SettingsError, match=message):
        find_data(DataSettings(images=str(tmp_path), **patterns))


NAMES = st.sampled_from(["a", "b", "a_m", "b_m", "a_m_m", "m", "_m", "m_a", "é"])
FILES = st.lists(
    st.builds(
        lambda folder, name, suffix: PurePosixPath(folder) / (name + suffix),
        st.sampled_from(["", "p", "p/masks", "masks"]),
        NAMES,
        st.sampled_from([".png", ".jpg", ".PNG"]),
    ),
    unique=True,
    max_size=12,
)


@tries(max_examples=300, deadline=None)
@given(
    FILES,
    FILES,
    st.booleans(),
    st.sampled_from(
        ["{stem}_m.png", "{stem}_m", "{parent}/masks/{stem}.png", "masks/{stem}.png", "m_{stem}.jpg", "{stem}"]
    ),
    st.sampled_from([None, "{stem}.jpg", "a{stem}.png", "m_{stem}.png"]),
)
def test_every_file_is_in_a_pair_or_reported_exactly_once(images, masks, same, mask_pattern, image_pattern):
    masks = images if same else masks
    found, problems = pair_by_pattern(images, masks, Patterns(mask_pattern, image_pattern), same=same)
    if same:
        places = Counter([file for pair in found for file in pair] + [f for files in problems.values() for f in files])
        assert places == Counter(images)
    else:
        reported = sum(len(files) for files in problems.values())
        assert 2 * len(found) + reported == len(images) + len(masks)
    patterns = Patterns(mask_pattern, image_pattern)
    assert all(patterns.comparable(mask) == patterns.place(image) for image, mask in found)
