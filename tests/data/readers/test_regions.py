import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from convlora.data.readers.regions import Runs, ellipse, polygon, rectangle, runs
from convlora.errors import MaskError
from tests.data.readers.drawing import inside, star

HEIGHT, WIDTH = 9, 11


def covered(region, height=HEIGHT, width=WIDTH):
    mask = np.zeros((height, width), dtype=bool)
    cover = region.cover(height, width)
    if cover is not None:
        rows, columns, pixels = cover
        mask[rows, columns] = pixels
    return mask


grid = st.integers(-8, 30).map(lambda value: value / 2)  # hits corners, edges and centres of pixels, in and out
smooth = st.floats(-4, 15, width=32)
rings = st.lists(st.tuples(grid, grid) | st.tuples(smooth, smooth), min_size=3, max_size=7)


@settings(max_examples=150, deadline=None)
@given(rings, st.lists(rings, max_size=1))
def test_a_pixel_is_inside_if_its_centre_is_by_even_odd(exterior, holes):
    made = polygon(exterior, holes)
    if isinstance(made, str):
        assert made == "no area"
        return
    near_edge = np.zeros((HEIGHT, WIDTH), dtype=bool)
    if any(value * 2 % 1 for ring in (exterior, *holes) for point in ring for value in point):
        for shift in (-1e-9, 1e-9):  # rounding of the crossing decides on pixels whose centre is this near to an edge
            moved = [[(x + shift, y) for x, y in ring] for ring in (exterior, *holes)]
            near_edge |= inside(moved, HEIGHT, WIDTH) != inside((exterior, *holes), HEIGHT, WIDTH)
    expected = inside((exterior, *holes), HEIGHT, WIDTH)
    np.testing.assert_array_equal(covered(made) | near_edge, expected | near_edge)


@settings(max_examples=100, deadline=None)
@given(st.tuples(grid, grid), st.tuples(grid, grid), st.tuples(grid, grid), st.tuples(grid, grid))
def test_shapes_on_both_sides_of_an_edge_share_no_pixel_and_leave_none_out(a, b, c, d):
    one, other, both = polygon([a, b, c]), polygon([a, c, d]), polygon([a, b, c, d])
    if any(isinstance(made, str) for made in (one, other, both)):
        return
    np.testing.assert_array_equal(covered(one) ^ covered(other), covered(both))


def test_half_open_edges_by_hand():
    square = covered(polygon([(0.5, 0.5), (2.5, 0.5), (2.5, 2.5), (0.5, 2.5)]), 4, 4)
    assert np.argwhere(square).tolist() == [
        [0, 0],
        [0, 1],
        [1, 0],
        [1, 1],
    ]  # left and top edge in, right and bottom out


@pytest.mark.parametrize(("points", "least"), [(3, 0.99), (12, 0.99), (60, 0.98)])  # much boundary
def test_large_outlines_agree_with_pycocotools(points, least):
    rng = np.random.default_rng(points)
    for _ in range(5):
        ring = star(rng, 800, 1000, points, reach=0.45)
        packed = coco.merge(coco.frPyObjects([ring.ravel().tolist()], 800, 1000))
        theirs, ours = coco.decode(packed).astype(bool), covered(polygon(ring), 800, 1000)
        assert (theirs & ours).sum() / (theirs | ours).sum() >= least
        assert (theirs ^ ours).sum() <= _length(ring)  # a pixel for each pixel of the outline, at most


def _length(ring):
    return np.hypot(*(ring - np.roll(ring, 1, axis=0)).T).sum()


def test_a_hole_is_a_hole_and_a_ring_in_it_is_not():
    nested = [[(k, k), (9 - k, k), (9 - k, 9 - k), (k, 9 - k)] for k in (0, 1, 2)]
    mask = covered(polygon(nested[0], nested[1:]), 9, 9)
    assert mask[0].all() and not mask[1, 1:8].any() and mask[4, 4]
    assert polygon(nested[0], nested[1:2]).area == 81 - 49


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([], "fewer than 3 points"),
        ([(0, 0), (1, 1)], "fewer than 3 points"),
        ([(0, 0), (1, 1), (5, 5)], "no area"),
        ([(2, 2)] * 4, "no area"),
        ([(0, 0), (float("nan"), 1), (5, 5)], "not finite"),
        ([(0, 0), (float("inf"), 1), (5, 5)], "not finite"),
        ([(0, 0), (1e300, 1), (5, 5)], "far off"),
        ([(0, 0), (10**400, 1), (5, 5)], "not numbers"),
        ([(0, 0), ("a", 1), (5, 5)], "not numbers"),
        ([(0, 0), (1,), (5, 5)], "not numbers"),
        ([(0, 0, 0), (1, 1, 1), (5, 5, 0)], "not pairs"),
        ([1, 2, 3, 4, 5, 6], "not pairs"),
    ],
)
def test_what_is_no_polygon_says_why(points, reason):
    made = polygon(points)
    assert isinstance(made, str) and reason in made


def test_a_figure_of_eight_has_pixels_although_its_signed_area_is_0():
    assert covered(polygon([(0, 0), (8, 8), (8, 0), (0, 8)])).sum() > 20


def test_an_ellipse_is_one_and_turns_clockwise():
    y, x = np.mgrid[:60, :80] + 0.5
    for degrees in (0, 30):
        turned = np.deg2rad(degrees)
        along = (x - 40) * np.cos(turned) + (y - 30) * np.sin(turned)
        across = (y - 30) * np.cos(turned) - (x - 40) * np.sin(turned)
        expected = (along / 30) ** 2 + (across / 12) ** 2 <= 1
        assert (covered(ellipse((40, 30), (30, 12), degrees), 60, 80) ^ expected).sum() <= 6
    assert ellipse((1, 1), (0, 5)) == "no area"
    assert "not finite" in ellipse((1, 1), (float("nan"), 5))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(-4, 4), st.integers(-4, 4), st.integers(0, 2**36 - 1))
def test_runs_give_their_mask_back_wherever_it_lies(height, width, top, left, bits):
    mask = np.array([bits >> i & 1 for i in range(height * width)], dtype=bool).reshape(height, width)
    ours = covered(Runs.of(mask, top, left), 6, 7)
    expected = np.zeros((20, 20), dtype=bool)
    expected[6 + top : 6 + top + height, 6 + left : 6 + left + width] = mask
    np.testing.assert_array_equal(ours, expected[6:12, 6:13])
    assert Runs.of(mask).area == mask.sum()


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([3, 2], "add up"),
        ([-1, 13], "lengths"),
        ([2**50, 12], "lengths"),
        ([10**30], "whole numbers"),
        (["x"], "whole numbers"),
        ([[12]], "lengths"),
        (None, "whole numbers"),
        ([12], "no area"),
        ([], "add up"),
    ],
)
def test_what_are_no_runs_say_why(counts, reason):
    made = runs(counts, 3, 4)
    assert isinstance(made, str) and reason in made


def test_a_mask_larger_than_its_image_is_refused_before_it_is_made():
    with pytest.raises(MaskError, match="larger than its image"):
        runs([1, 10**9 - 1], 10**5, 10**4).cover(50, 50)


def test_a_polygon_of_many_points_is_quick_and_an_absurd_one_is_refused():
    angles = np.linspace(0, 2 * np.pi, 100_000, endpoint=False)
    fine = polygon(np.stack([500 + 400 * np.cos(angles), 500 + 400 * np.sin(angles)], axis=1))
    start = time.perf_counter()
    assert covered(fine, 1000, 1000).sum() == pytest.approx(np.pi * 400**2, rel=1e-3)
    zigzag = np.stack([np.linspace(0, 999, 60_000), np.tile([0.0, 1000.0], 30_000)], axis=1)
    with pytest.raises(MaskError, match="crosses the rows"):
        covered(polygon(zigzag), 1000, 1000)
    assert time.perf_counter() - start < 5


def test_a_rectangle_is_its_pixels():
    assert covered(rectangle(1, 2, 4, 5)).sum() == 9 and isinstance(rectangle(1, 2, 1, 5), str)
