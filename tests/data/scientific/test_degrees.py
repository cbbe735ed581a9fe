import numpy as np
import pytest
import rasterio
from rasterio.warp import transform

from convlora.data.scientific.degrees import in_degrees
from convlora.data.scientific.geometry import RasterGeometry
from convlora.errors import MaskError


def geometry(crs, matrix):
    return RasterGeometry("town.tif", (1000, 1000), rasterio.crs.CRS.from_user_input(crs).to_wkt(), matrix)


def box(left, top, right, bottom):
    return np.array([[left, top], [left, bottom], [right, bottom], [right, top], [left, top]])


@pytest.mark.parametrize(
    ("crs", "matrix"),
    [("EPSG:3035", (1000.0, 0, 4.3e6, 0, -1000.0, 3.3e6)), ("EPSG:32633", (30.0, 10.0, 5e5, 10.0, -30.0, 5.4e6))],
)
def test_straight_edges_between_the_points_stay_on_the_raster_s_edges(crs, matrix):
    a, b, c, d, e, f = matrix
    boxes = [box(0, 0, 1000, 1000), box(3, 5, 4, 6)]
    points, rings = in_degrees(geometry(crs, matrix))(np.concatenate(boxes), np.repeat([0, 1], 5))
    assert (np.diff(rings) >= 0).all() and (rings == 1).sum() == 5 < (rings == 0).sum() < 5000
    for ring, corners in enumerate(boxes):
        own = points[rings == ring]
        np.testing.assert_array_equal(own[0], own[-1])
        dense = np.concatenate([own[:-1] + share * np.diff(own, axis=0) for share in np.linspace(0, 1, 11)])
        x, y = np.array(transform("EPSG:4326", crs, *dense.T))
        column, row = np.linalg.solve([[a, b], [d, e]], [x - c, y - f])
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        to_edge = np.min([abs(column - left), abs(column - right), abs(row - top), abs(row - bottom)], axis=0)
        assert to_edge.max() < 0.025  # of a pixel: 0.02, and the rounding to a tenth of a millimetre
        for corner in corners:
            assert np.hypot(column - corner[0], row - corner[1]).min() < 1e-3


def test_rings_on_both_sides_of_180_degrees_may_lie_in_one_raster_but_none_across():
    place = in_degrees(geometry("EPSG:3832", (1000.0, 0, 2.8e6, 0, -1000.0, 1e6)))  # metres from 150° east
    both = np.concatenate([box(0, 0, 10, 10), box(900, 0, 910, 10)])
    points, rings = place(both, np.repeat([0, 1], 5))
    assert (points[rings == 0, 0] > 170).all() and (points[rings == 1, 0] < -170).all() and len(points) == 10
    with pytest.raises(MaskError, match="lies across 180° of longitude"):
        place(box(0, 0, 910, 10), np.zeros(5, dtype=int))


@pytest.mark.parametrize("matrix", [(0, 0, 0, 0, 0, 0), (1, 2, 0, 2, 4, 0), (np.nan, 0, 0, 0, 1, 0)])
def test_a_transform_without_an_area_is_refused(matrix):
    with pytest.raises(MaskError, match="does not give each pixel its own place"):
        in_degrees(geometry("EPSG:3035", matrix))
