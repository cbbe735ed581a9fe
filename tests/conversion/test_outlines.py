import tracemalloc

import numpy as np
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rasterio.features import rasterize
from scipy import ndimage

from convlora.conversion.keyholes import one_ring
from convlora.conversion.outlines import trace
from convlora.conversion.pictures import Found
from convlora.conversion.polygons import polygons
from tests.conversion.masks import even_odd, masks


@given(masks(classes=2))
def test_outlines_filled_by_pixel_centres_are_the_mask_again(mask):
    mask = mask > 0
    traced = trace(mask)
    assert even_odd([ring for polygon in traced for ring in polygon.rings], mask.shape).tolist() == mask.tolist()
    assert len(traced) == ndimage.label(mask)[1]
    for polygon in traced:
        shape = shapely.Polygon(polygon.outer, polygon.holes)
        assert shape.is_valid, shapely.is_valid_reason(shape)
        assert (rasterize([shape], mask.shape) > 0).tolist() == even_odd(polygon.rings, mask.shape).tolist()
        assert shape.area == even_odd(polygon.rings, mask.shape).sum()


@given(masks(classes=2))
def test_a_polygon_cut_open_into_one_ring_covers_the_same_by_either_rule(mask):
    for polygon in trace(mask > 0):
        ring = one_ring(polygon)
        covered = even_odd(polygon.rings, mask.shape)
        assert even_odd([ring], mask.shape).tolist() == covered.tolist()
        x, y = ring.T
        assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() == 2 * covered.sum()  # no part is wound around twice
        assert not (ring == np.roll(ring, -1, axis=0)).all(axis=1).any()
        steps = np.roll(ring, -1, axis=0) - ring
        assert (steps == 0).any(axis=1).all(), "a cut does not run along pixel edges"


@settings(max_examples=50, deadline=None)
@given(masks(classes=2), st.sampled_from([0.6, 1.5, 3.0]))
@example(np.pad(np.zeros((1, 1)), 1, constant_values=1), 1.5)
def test_a_simplified_polygon_cut_open_covers_what_it_covers_with_its_holes(mask, tolerance):
    mask = np.kron(mask > 0, [[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 0]]) > 0  # slanted once simplified
    for polygon in polygons(Found(1, 0, 0, mask), tolerance):
        shape, ring = shapely.Polygon(polygon.outer, polygon.holes), one_ring(polygon)
        x, y = ring.T
        assert np.isclose((x * np.roll(y, -1) - np.roll(x, -1) * y).sum(), 2 * shape.area)
        assert even_odd([ring], mask.shape).tolist() == even_odd(polygon.rings, mask.shape).tolist()
        assert shape.buffer(1e-6).covers(shapely.LinearRing(ring)), "a cut leaves the polygon"


def test_tracing_a_large_mask_takes_few_bytes_a_pixel():
    mask = np.zeros((1000, 1000), dtype=bool)
    mask[1:-1, 1:-1] = True
    mask[::97, ::13] = False
    tracemalloc.start()
    try:
        trace(mask)
        assert tracemalloc.get_traced_memory()[1] < 20 * mask.size
    finally:
        tracemalloc.stop()


def test_outlines_have_corners_only_and_go_clockwise_and_holes_the_other_way():
    mask = np.ones((4, 5), dtype=bool)
    mask[1:3, 2] = False
    (polygon,) = trace(mask)
    assert polygon.outer.tolist() == [[0, 0], [5, 0], [5, 4], [0, 4]]
    (hole,) = polygon.holes
    assert sorted(hole.tolist()) == [[2, 1], [2, 3], [3, 1], [3, 3]]
    assert shapely.LinearRing(polygon.outer).is_ccw and not shapely.LinearRing(hole).is_ccw  # with y downwards


def test_pixels_that_touch_in_a_corner_are_two_polygons_and_two_holes_that_do_are_two_holes():
    assert len(trace(np.eye(2, dtype=bool))) == 2
    around = np.ones((4, 4), dtype=bool)
    around[1, 1] = around[2, 2] = False
    (polygon,) = trace(around)
    assert len(polygon.holes) == 2


def test_ten_thousand_holes_are_cut_open_without_recursion():
    mask = np.ones((201, 201), dtype=bool)
    mask[1::2, 1::2] = False
    (polygon,) = trace(mask)
    assert len(polygon.holes) == 10_000
    x, y = one_ring(polygon).T
    assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() == 2 * mask.sum()


@given(masks(classes=2))
def test_a_tolerance_is_the_largest_distance_of_the_outline_and_leaves_out_no_polygon(mask):
    mask = np.kron(mask > 0, np.ones((3, 3))) > 0
    found = Found(1, 5, 7, mask)
    exact, simple = polygons(found), polygons(found, 1.5)
    assert len(exact) == len(simple)
    for one, other in zip(exact, simple, strict=True):
        assert len(other.holes) == len(one.holes)
        for ring, fewer in zip(one.rings, other.rings, strict=True):
            assert len(fewer) <= len(ring)
            far = shapely.hausdorff_distance(shapely.LinearRing(ring), shapely.LinearRing(fewer), densify=0.1)
            assert far <= 1.5 + 1e-9


def test_an_object_is_where_it_is_in_its_image():
    (polygon,) = polygons(Found(1, 5, 7, np.ones((2, 3), dtype=bool)))
    assert polygon.outer.tolist() == [[7, 5], [10, 5], [10, 7], [7, 7]]
