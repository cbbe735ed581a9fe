import numpy as np
import pytest

from convlora.data.labels.bits import IGNORED, pack
from convlora.inference.drawing import class_colour, overlay


def test_the_first_twenty_classes_have_twenty_colours():
    colours = {class_colour(i) for i in range(1, 21)}
    assert len(colours) == 20 and all(0 <= value <= 255 for colour in colours for value in colour)
    assert class_colour(1) == (230, 159, 0)


def test_only_the_classes_pixels_change_and_the_outline_is_their_colour():
    image = np.full((9, 9, 3), 100, dtype=np.uint8)
    ids = np.zeros((9, 9), dtype=np.uint8)
    ids[2:7, 3:8] = 2
    ids[0, 0] = 255
    got = overlay(image, ids)
    changed = (got != image).any(-1)
    np.testing.assert_array_equal(changed, ids == 2)
    inner = np.zeros_like(changed)
    inner[3:6, 4:7] = True
    outline = (got == class_colour(2)).all(-1)
    np.testing.assert_array_equal(outline, (ids == 2) & ~inner)
    want = (100 * 0.55 + np.array(class_colour(2)) * 0.45).astype(np.uint8)
    np.testing.assert_array_equal(got[4, 5], want)
    assert (image == 100).all()  # the given one is not changed


def test_another_ignored_id_is_left_alone():
    image = np.zeros((2, 2, 3), dtype=np.uint8)
    ids = np.full((2, 2), 7, dtype=np.uint8)
    assert (overlay(image, ids, ignore_index=7) == 0).all()
    assert (overlay(image, ids) != 0).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_the_thinnest_images_can_be_drawn(shape):
    got = overlay(np.zeros((*shape, 3), dtype=np.uint8), np.ones(shape, dtype=np.uint8))
    assert got.shape == (*shape, 3) and (got != 0).any()


def test_classes_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"classes of \(2, 3\) for an image of \(3, 2\)"):
        overlay(np.zeros((3, 2, 3), dtype=np.uint8), np.zeros((2, 3), dtype=np.uint8))


def test_classes_have_the_colours_that_are_given():
    image = np.full((5, 5, 3), 100, dtype=np.uint8)
    got = overlay(image, np.full((5, 5), 1, dtype=np.uint8), colours={1: (0, 200, 0)})
    np.testing.assert_array_equal(got, np.broadcast_to([55, 145, 55], (5, 5, 3)))  # 0.55 * 100 + 0.45 * colour


def test_where_classes_overlap_the_tint_is_their_mean_and_each_has_its_outline():
    image = np.zeros((9, 12, 3), dtype=np.uint8)
    one, two = np.zeros((9, 12), dtype=bool), np.zeros((9, 12), dtype=bool)
    one[1:8, 1:8], two[1:8, 4:11] = True, True
    colours = {1: (200, 0, 0), 2: (0, 100, 0)}
    got = overlay(image, pack([one, two]), IGNORED, colours=colours, multilabel=True)
    np.testing.assert_array_equal(got[4, 2], [90, 0, 0])
    np.testing.assert_array_equal(got[4, 9], [0, 45, 0])
    np.testing.assert_array_equal(got[4, 5], [45, 22, 0])  # 0.45 * (100, 50, 0)
    assert (got[4, 7] == (200, 0, 0)).all() and (got[4, 4] == (0, 100, 0)).all()
    assert not got[~(one | two)].any()
    assert not overlay(image, np.full((9, 12), IGNORED), IGNORED, multilabel=True).any()
