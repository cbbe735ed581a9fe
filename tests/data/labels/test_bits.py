from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from convlora.data.augmentation.augment import augment
from convlora.data.augmentation.settings import AugmentationSettings
from convlora.data.labels.bits import IGNORED, MOST_CLASSES, bit, members, pack, unpack
from convlora.data.labels.classes import arrange_classes, overlapping
from convlora.data.labels.format import LabelFormat
from convlora.data.settings import DataSettings
from convlora.errors import MaskError, SettingsError
from convlora.sam import SamSegmentationImageProcessor

PATH = Path("m.tif")
CHANNELS = arrays(bool, st.tuples(st.integers(1, MOST_CLASSES), st.integers(1, 4), st.integers(1, 4)))


@given(CHANNELS)
def test_what_is_packed_is_unpacked(channels):
    fields = pack(channels)
    for class_id, channel in enumerate(channels, 1):
        np.testing.assert_array_equal(unpack(fields, class_id), channel)
    for value in np.unique(fields).tolist():
        assert value == sum(bit(class_id) for class_id in members(value))
    fields[0, 0] = IGNORED
    assert not any(unpack(fields, class_id)[0, 0] for class_id in range(1, MOST_CLASSES + 1))
    assert members(0) == (0,)


def labels(**values):
    return LabelFormat(("background", "a", "b", "c"), "bits", IGNORED, multilabel=True, **values)


@given(arrays(np.int32, (3, 5), elements=st.integers(-1, 9)))
def test_bit_fields_decode_to_themselves_or_are_refused(values):
    if (values > 7).any():
        with pytest.raises(MaskError, match="not among the bit fields of 3 classes"):
            labels().decode(values, PATH)
    else:
        got = labels().decode(values, PATH)
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, values)


@given(
    arrays(np.int32, (4, 4), elements=st.integers(-1, 7)),
    st.lists(st.sampled_from(["x", "y", "background", "ignore"]), min_size=3, max_size=3),
)
def test_overlapping_classes_are_merged_left_out_and_ignored(values, targets):
    settings = DataSettings(images="x", task="multilabel", class_map=dict(zip("abc", targets, strict=True)))
    if len(set(targets) - {"background", "ignore"}) < 2:
        with pytest.raises(SettingsError):
            arrange_classes(labels(), settings, named=True)
        return
    mapped, _ = arrange_classes(labels(), settings, named=True)
    got = mapped.decode(values, PATH)
    for value, field in zip(values.ravel().tolist(), got.ravel().tolist(), strict=True):
        named = {targets["abc".index("abc"[c - 1])] for c in members(value) if c} if value > 0 else set()
        if value == IGNORED or "ignore" in named:
            assert field == IGNORED
        else:
            assert {mapped.classes[c] for c in members(field) if c} == named - {"background"}


def test_classes_of_plain_masks_become_bits():
    plain = LabelFormat(("background", "a", "b", "c"), "ids", 255)
    got = overlapping(plain).decode(np.array([[0, 1, 2, 3, 255]], dtype=np.int32), PATH)
    assert got.tolist() == [[0, 1, 2, 4, IGNORED]]


def test_a_task_of_overlapping_classes_needs_two_and_at_most_thirty():
    for count in (2, 32):
        with pytest.raises(SettingsError, match=rf"2 to 30 classes beside the background, not {count - 1} "):
            LabelFormat(tuple(map(str, range(count))), "bits", IGNORED, multilabel=True)
    with pytest.raises(SettingsError, match="encoding table or bits and ignore_index=-1, not ids and 255"):
        LabelFormat(("a", "b", "c"), "ids", 255, multilabel=True)
    with pytest.raises(SettingsError, match="encoding='bits' is for multilabel masks"):
        LabelFormat(("a", "b", "c"), "bits", 255)


@pytest.mark.parametrize("rotate", [0.0, 40.0])
def test_augmentation_moves_bit_fields_as_it_moves_each_class(rotate):
    channels = np.random.default_rng(0).random((30, 32, 40)) < 0.3
    image = np.zeros((32, 40, 3), dtype=np.uint8)
    settings = AugmentationSettings(rotate=rotate)

    def moved(mask, ignore_index):
        return augment(image, mask, settings, np.random.default_rng(5), ignore_index)[1]

    fields = moved(pack(channels), IGNORED)
    assert fields.dtype == np.int32
    for class_id, channel in enumerate(channels, 1):
        alone = moved(channel.astype(np.uint8), 255)
        np.testing.assert_array_equal(unpack(fields, class_id), alone == 1)
        np.testing.assert_array_equal(fields == IGNORED, alone == 255)


def test_the_processor_resizes_bit_fields_as_each_class():
    channels = np.random.default_rng(1).random((30, 21, 34)) < 0.3
    processor = SamSegmentationImageProcessor(size=64, ignore_index=IGNORED, multilabel=True)
    image = np.zeros((21, 34, 3), dtype=np.uint8)
    got = processor(image, pack(channels)).labels[0].numpy()
    for class_id in (1, 17, 30):
        alone = processor(image, channels[class_id - 1].astype(np.uint8)).labels[0].numpy()
        np.testing.assert_array_equal(unpack(got, class_id), alone == 1)
    assert (got[:, 63] != IGNORED).any() and (got[63] == IGNORED).all()
