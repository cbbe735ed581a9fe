from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlora.data.pixels.masks import detect_labels
from convlora.errors import MaskError, SettingsError


def detect(*masks, classes=None, mask_format="auto", ignore_index=255, suffix="png"):
    """Each mask is a set of values, of ten pixels each."""
    histograms = {Path(f"m{i}.{suffix}"): dict.fromkeys(values, 10) for i, values in enumerate(masks)}
    return detect_labels(histograms, classes=classes, mask_format=mask_format, ignore_index=ignore_index)


@pytest.mark.parametrize("masks", [[{0, 255}], [{0}, {255}], [{0, 255}, {0}], [{255}]])
def test_0_and_255_are_background_and_foreground(masks):
    labels, notes = detect(*masks)
    assert (labels.encoding, labels.classes) == ("binary", ("background", "foreground"))
    assert "read 0 as background and 255 as foreground (--mask_format binary)" in notes[0] and len(notes) == 1


def test_0_and_1_are_ids_of_two_classes():
    labels, notes = detect({0, 1}, {0})
    assert (labels.encoding, labels.classes) == ("ids", ("background", "foreground"))
    assert notes == ["masks hold 0, 1: read as ids of 2 classes (--mask_format ids)"]


def test_255_beside_other_ids_is_ignored_and_counted():
    labels, notes = detect({0, 1, 2, 255}, {0, 255}, {2})
    assert (labels.encoding, labels.num_classes) == ("ids", 3)
    assert labels.classes == ("background", "class 1", "class 2")
    assert notes[1] == "255 is ignored (--ignore_index): 20 pixels in 2 masks"


def test_masks_of_nothing_but_zeros_are_told():
    labels, notes = detect({0}, {0})
    assert labels.num_classes == 2 and notes == ["every mask is 0 throughout: read as background only"]


@given(count=st.integers(2, 32), data=st.data())
def test_most_ids_of_a_small_range_are_enough(count, data):
    others = data.draw(st.sets(st.integers(0, count - 1), min_size=(count + 1) // 2))
    labels, _ = detect(others | {0, count - 1})
    assert (labels.encoding, labels.num_classes) == ("ids", count)


@pytest.mark.parametrize("values", [{0, 128, 255}, {0, 128}, {0, 10}, {-1, 0, 1}, {0, 1, 256}, {0, 50, 100, 150}])
def test_values_that_are_no_ids_are_listed_with_the_ways_out(values):
    listed = ", ".join(map(str, sorted(values - {255})))
    with pytest.raises(MaskError, match=rf"values {listed}, which are not class ids .*--classes.*--mask_format"):
        detect(values)


def test_more_than_32_classes_are_believed_only_if_they_are_listed():
    with pytest.raises(MaskError, match=r"33 different.*--classes"):
        detect(set(range(33)))
    labels, _ = detect(set(range(33)), classes=[f"c{i}" for i in range(40)])
    assert labels.num_classes == 40


@pytest.mark.parametrize("values", [set(range(256)), {0, 1, 3, 251, 254, 255}, {0, 2, 253, 255}])
@pytest.mark.parametrize("classes", [None, ["background", "polyp"]])
def test_smeared_values_are_recognised(values, classes):
    with pytest.raises(MaskError, match="look smeared by lossy compression or by smooth resizing"):
        detect(values, classes=classes)


@pytest.mark.parametrize("classes", [None, ["a", "b", "c", "d"]])
def test_jpeg_masks_are_taken_only_if_nothing_is_smeared(classes):
    with pytest.raises(MaskError, match=r"m1\.jpg: JPEG has smeared the values of this mask: 0, 1, 2; 1 of 2 masks"):
        detect({0, 1}, {0, 1, 2}, suffix="jpg", classes=classes)
    assert detect({0, 255}, suffix="JPEG")[0].encoding == "binary"


def test_two_formats_of_foreground_in_one_data_set_are_refused():
    with pytest.raises(MaskError, match=r"1 masks use 1, such as m0\.png, and 2 others use 255, such as m1\.png"):
        detect({0, 1}, {0, 255}, {255})
    assert detect({0, 1}, {0, 255}, mask_format="ids")[0].num_classes == 2
    assert detect({0, 1}, {0, 255}, classes=["a", "b", "c"])[0].encoding == "ids"
    assert detect({0, 1, 255}, {0, 255})[0].encoding == "ids"


def test_two_listed_classes_in_0_and_255_are_binary():
    labels, _ = detect({0, 255}, classes=["background", "polyp"])
    assert (labels.encoding, labels.classes) == ("binary", ("background", "polyp"))


def test_three_listed_classes_make_255_ignored():
    labels, notes = detect({0, 255}, classes=["a", "b", "c"])
    assert labels.encoding == "ids" and "255 is ignored" in notes[1]


def test_ids_above_the_listed_classes_are_refused_with_counts():
    with pytest.raises(
        MaskError, match=r"m1\.png: values 2, 3 in 1 of 2 masks are not among 0\.\.1.*; 20 of 50 pixels \(40 %\)"
    ):
        detect({0, 1}, {0, 2, 3}, classes=["a", "b"])


def test_the_user_can_overrule_detection():
    labels, notes = detect({0, 255}, mask_format="ids")
    assert (labels.encoding, labels.num_classes) == ("ids", 2) and "255 is ignored" in notes[1]
    assert detect({0, 128}, mask_format="ids")[0].num_classes == 129
    assert detect({0}, mask_format="binary")[0].encoding == "binary"
    with pytest.raises(MaskError, match=r"values 1 in 1 of 1 masks are not among 0 \(background\) and 255"):
        detect({0, 1}, mask_format="binary")


def test_a_grey_border_can_be_ignored():
    labels, notes = detect({0, 128, 255}, ignore_index=128)
    assert (labels.encoding, labels.ignore_index) == ("binary", 128)
    assert notes[1] == "128 is ignored (--ignore_index): 10 pixels in 1 masks"


def test_contradicting_settings_are_refused():
    with pytest.raises(SettingsError, match="mask_format='rgb' must be one of auto, ids, binary"):
        detect({0}, mask_format="rgb")
    with pytest.raises(SettingsError, match="binary has 2 classes, not the 3"):
        detect({0, 255}, mask_format="binary", classes=["a", "b", "c"])
    with pytest.raises(SettingsError, match="ignore_index=1 must be between"):
        detect({0, 1, 2}, ignore_index=1)
    with pytest.raises(MaskError, match="no mask"):
        detect()


@given(
    masks=st.lists(st.sets(st.integers(0, 5) | st.sampled_from([127, 128, 254, 255, 256]), min_size=1), min_size=1),
    count=st.none() | st.integers(2, 6),
    mask_format=st.sampled_from(["auto", "ids", "binary"]),
)
def test_whatever_is_concluded_covers_every_value_and_is_told(masks, count, mask_format):
    classes = None if count is None else [f"c{i}" for i in range(count)]
    try:
        labels, notes = detect(*masks, classes=classes, mask_format=mask_format)
    except (MaskError, SettingsError):
        return
    assert notes
    assert set().union(*masks) <= labels.mapping().keys()
    assert mask_format in ("auto", labels.encoding)
    assert classes is None or labels.classes == tuple(classes)
