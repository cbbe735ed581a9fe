from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlora.data.labels.format import LabelFormat
from convlora.errors import MaskError, SettingsError

PATH = Path("masks/a.png")


def decode(labels, values):
    return labels.decode(np.array(values, dtype=np.int32), PATH)


@given(
    classes=st.integers(2, 255),
    values=st.lists(st.integers(-3, 300) | st.integers(-(2**31) + 1, 2**31 - 1), min_size=1, max_size=30),
    data=st.data(),
)
def test_ids_decode_to_themselves_or_the_mask_is_refused(classes, values, data):
    ignore = data.draw(st.integers(classes, 255))
    labels = LabelFormat(tuple(f"c{i}" for i in range(classes)), "ids", ignore)
    bad = [value for value in values if not 0 <= value < classes and value != ignore]
    if bad:
        with pytest.raises(MaskError, match=rf"masks/a\.png: .*; {len(bad)} of {len(values)} pixels"):
            decode(labels, [values])
    else:
        got = decode(labels, [values])
        assert got.dtype == np.uint8 and got.tolist() == [values]


def test_binary_masks_decode_to_0_and_1():
    labels = LabelFormat(("background", "polyp"), "binary")
    assert decode(labels, [[0, 255], [255, 0]]).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(MaskError, match=r"values 1, 128 are not among 0 \(background\) and 255 \(foreground\); 2 of 4"):
        decode(labels, [[0, 1], [128, 255]])


def test_a_grey_border_of_binary_masks_can_be_ignored():
    labels = LabelFormat(("background", "polyp"), "binary", 128)
    assert decode(labels, [[0, 128, 255]]).tolist() == [[0, 128, 1]]


def test_many_unknown_values_are_shortened():
    with pytest.raises(
        MaskError, match=r"values 2, 3, 4, 5, 6, 7, 8, … 254 \(253 different\) are not among 0\.\.1 and 255"
    ):
        decode(LabelFormat(("a", "b")), [list(range(256))])


def test_names_and_numbers_agree():
    labels = LabelFormat(("background", "cell", "border"))
    assert labels.num_classes == 3
    assert labels.id2label == {0: "background", 1: "cell", 2: "border"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("one",), "ids", 255), "1 classes must be 2 to 255"),
        ((tuple(map(str, range(256))), "ids", 255), "256 classes must be"),
        ((("a", "a"), "ids", 255), "holds a name twice"),
        ((("a", "b", "c"), "ids", 2), r"ignore_index=2 must be between 3 and 255, because 0\.\.2 are class ids"),
        ((("a", "b"), "ids", 256), "ignore_index=256"),
        ((("a", "b"), "ids", -1), "ignore_index=-1"),
        ((("a", "b"), "colours", 255), "encoding='colours' must be one of ids, binary"),
        ((("a", "b", "c"), "binary", 255), "binary has 2 classes, not the 3"),
    ],
)
def test_contradictions_are_refused(arguments, message):
    with pytest.raises(SettingsError, match=message):
        LabelFormat(*arguments)
