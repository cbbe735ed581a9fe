from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from convlora.data.labels.bits import IGNORED, members
from convlora.data.pixels.decoding import DEFAULT_LIMITS
from convlora.data.readers import polygons
from convlora.data.readers.polygons import (
    IGNORE,
    PolygonMask,
    Shape,
    flaw_notes,
    largest_first,
    paint,
    polygon,
    rectangle,
    usable,
)
from convlora.data.settings import ImageLimits
from convlora.errors import ImageError, MaskError

BIG, SMALL = rectangle(0, 0, 8, 8), rectangle(2, 2, 5, 5)


def test_later_shapes_are_painted_over_earlier_ones():
    assert paint([Shape(1, (BIG,)), Shape(2, (SMALL,))], (8, 8))[3, 3] == 2
    hidden = paint([Shape(2, (SMALL,)), Shape(1, (BIG,))], (8, 8))
    assert (hidden == 1).all() and hidden.dtype == np.int32


def test_largest_first_keeps_small_shapes_visible_and_ties_in_order():
    shapes = [Shape(2, (SMALL,)), Shape(1, (BIG,)), Shape(3, (SMALL,))]
    assert [shape.class_id for shape in largest_first(shapes)] == [1, 2, 3]


def test_parts_of_a_shape_are_joined_even_where_they_overlap():
    assert (paint([Shape(1, (BIG, SMALL))], (8, 8)) == 1).all()


def test_ignored_regions_never_cover_a_labelled_object_whatever_the_order():
    crowd, thing = Shape(1, (BIG,), ignore=True), Shape(2, (SMALL,))
    for order in ([crowd, thing], [thing, crowd]):
        mask = paint(order, (9, 9))
        assert (mask[2:5, 2:5] == 2).all() and (mask == IGNORE).sum() == 64 - 9 and (mask[8] == 0).all()


def test_of_overlapping_classes_a_pixel_has_all():
    shapes = [Shape(1, (BIG,)), Shape(3, (SMALL,)), Shape(2, (rectangle(0, 0, 9, 3),), ignore=True)]
    mask = paint(shapes, (9, 9), multilabel=True)
    assert members(int(mask[3, 3])) == (1, 3) and members(int(mask[6, 6])) == (1,)
    assert mask[0, 8] == IGNORED and mask[8, 8] == 0


def test_shapes_beyond_the_image_are_cut():
    assert paint([Shape(1, (rectangle(-5, -5, 2.5, 1e6),))], (3, 4)).tolist() == [[1, 1, 0, 0]] * 3


def test_parts_that_cannot_be_painted_are_counted_and_told():
    flaws = Counter()
    parts = [BIG, polygon([(0, 0)]), polygon([(0, 0), (1, 1)]), rectangle(20, 20, 30, 30), rectangle(-3, 0, 0, 5)]
    parts += [polygons.Runs.of(np.ones((2, 3), dtype=bool), top, left) for top, left in ((8, 0), (0, -3), (0, 9))]
    assert usable(parts, (8, 8), flaws) == (BIG,)
    assert flaw_notes(flaws) == [
        "left out 7 shapes: 5 with all points outside of the image, 2 with fewer than 3 points"
    ]
    assert flaw_notes(Counter()) == []


def test_the_limits_hold_before_anything_is_painted():
    mask = PolygonMask(Path("a.json"), "b.jpg", (10**6, 10**6), (Shape(1, (BIG,)),))
    with pytest.raises(ImageError, match=r"a.json, b.jpg: .*64 megapixels"):
        mask.read_mask(DEFAULT_LIMITS)
    with pytest.raises(ImageError):
        PolygonMask(Path("a.json"), "b.jpg", (0, 5), ()).read_mask(ImageLimits())


def test_absurdly_many_shapes_are_refused(monkeypatch):
    monkeypatch.setattr(polygons, "_WORK", 1e6)  # that of an image of 8 x 8 pixels
    with pytest.raises(MaskError, match="1000 shapes cover the image of 8 x 8 pixels too often"):
        paint([Shape(1, (BIG,))] * 1000, (8, 8))
    assert (paint([Shape(1, (BIG,))] * 150, (8, 8)) == 1).all()


def test_masks_of_one_file_are_told_apart_by_the_image_and_size():
    one = PolygonMask(Path("a.json"), "b.jpg", (2, 2), (Shape(1, (BIG,)),))
    assert one == PolygonMask(Path("a.json"), "b.jpg", (2, 2), (Shape(1, (BIG,)),))
    assert len({one, PolygonMask(Path("a.json"), "c.jpg", (2, 2), ())}) == 2 and str(one) == "a.json, b.jpg"
