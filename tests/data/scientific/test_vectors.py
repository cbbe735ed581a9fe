import json

import numpy as np
import pyogrio
import pytest
import shapely
from PIL import Image, ImageDraw
from rasterio.warp import transform as warp

from convlora.data.pixels.masks import read_mask
from convlora.data.scientific.geotiff import open_geotiff
from convlora.data.scientific.vectors import VectorMask, layer_classes, read_layer
from convlora.data.settings import ImageLimits
from convlora.errors import DataError, MaskError
from tests.data.scientific.makers import L2A, ramp, save_geotiff

LIMITS = ImageLimits()
H, W = 40, 60
A, _, C, _, E, F = L2A["EPSG:32616"]


def on_earth(points, crs="EPSG:32616"):
    xs, ys = zip(*[(A * x + C, E * y + F) for x, y in points], strict=True)
    if crs != "EPSG:32616":
        xs, ys = warp("EPSG:32616", crs, xs, ys)
    return [list(map(float, point)) for point in zip(xs, ys, strict=True)]


def box(left, top, right, bottom):
    return [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]


def geojson(path, features, crs="EPSG:32616"):
    """Features: pairs of a ring in pixels and a dictionary of attributes."""
    items = [
        {
            "type": "Feature",
            "properties": attributes,
            "geometry": {"type": "Polygon", "coordinates": [on_earth(ring, crs)]},
        }
        for ring, attributes in features
    ]
    named = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{crs.split(':')[1]}"}}
    content = {"type": "FeatureCollection", "features": items} | ({"crs": named} if crs != "EPSG:4326" else {})
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def raster(tmp_path):
    return open_geotiff(save_geotiff(tmp_path / "image.tif", ramp((1, H, W), "uint8")), LIMITS)


def burned(path, raster, attribute=None):
    layer = read_layer(path, attribute)
    classes = layer_classes([layer])
    return read_mask(VectorMask(layer, raster, classes)), classes


FEATURES = [(box(3, 5, 20, 11), {"class": "road"}), (box(30, 2, 33, 38), {"class": "house"})]


def wanted():
    mask = np.zeros((H, W), dtype=np.int32)
    mask[5:11, 3:20] = 2  # house, road: in the order of their names
    mask[2:38, 30:33] = 1
    return mask


@pytest.mark.parametrize("crs", ["EPSG:32616", "EPSG:4326", "EPSG:3857", "EPSG:32617"])
def test_outlines_of_any_reference_system_are_burned_where_they_lie(tmp_path, raster, crs):
    mask, classes = burned(geojson(tmp_path / "a.geojson", FEATURES, crs), raster)
    assert classes == ("background", "house", "road")
    np.testing.assert_array_equal(mask, wanted())


@pytest.mark.parametrize("name", ["a.gpkg", "a.shp", "a.fgb"])
def test_other_formats_give_the_same(tmp_path, raster, name):
    shapes = shapely.to_wkb(np.array([shapely.Polygon(on_earth(ring)) for ring, _ in FEATURES]))
    values = [np.array([attributes["class"] for _, attributes in FEATURES], dtype=object)]
    pyogrio.raw.write(tmp_path / name, shapes, values, ["class"], geometry_type="Polygon", crs="EPSG:32616")
    mask, classes = burned(tmp_path / name, raster)
    np.testing.assert_array_equal(mask, wanted())
    assert classes == ("background", "house", "road")


def test_shapes_are_filled_as_pillow_fills_them_but_for_their_edges(tmp_path, raster):
    ring = [(5, 3), (50, 9), (37, 33), (20, 15), (5, 3)]
    mask, _ = burned(geojson(tmp_path / "a.geojson", [(ring, {"class": "x"})]), raster)
    picture = Image.new("L", (W * 8, H * 8))
    ImageDraw.Draw(picture).polygon([(x * 8, y * 8) for x, y in ring], fill=1)
    centres = np.asarray(picture)[4::8, 4::8]
    assert np.count_nonzero(centres != mask) <= 3 and mask.sum() > 300


def test_holes_are_background_and_later_outlines_lie_above(tmp_path, raster):
    path = geojson(tmp_path / "a.geojson", [(box(2, 2, 30, 30), {"class": 1}), (box(10, 10, 20, 20), {"class": 2})])
    content = json.loads(path.read_text())
    content["features"][0]["geometry"]["coordinates"].append(on_earth(box(4, 4, 8, 8)))
    path.write_text(json.dumps(content))
    mask, classes = burned(path, raster)
    assert classes == ("background", "1", "2")
    want = np.zeros((H, W), dtype=int)
    want[2:30, 2:30], want[4:8, 4:8], want[10:20, 10:20] = 1, 0, 2
    np.testing.assert_array_equal(mask, want)


def test_the_class_is_an_attribute_found_or_named(tmp_path, raster):
    features = [
        (box(1, 1, 5, 5), {"id": 7, "Label": 10.0, "kind": "b"}),
        (box(8, 8, 9, 9), {"id": 8, "Label": 9.0, "kind": "a"}),
    ]
    path = geojson(tmp_path / "a.geojson", features)
    assert burned(path, raster)[1] == ("background", "9", "10")  # as numbers, not as text
    assert burned(path, raster, "kind")[1] == ("background", "a", "b")
    with pytest.raises(MaskError, match=r"has no attribute 'species' \(--attribute\); it has .*kind"):
        read_layer(path, "species")
    bare = geojson(tmp_path / "b.geojson", [(box(1, 1, 5, 5), {"id": 7})])
    mask, classes = burned(bare, raster)
    assert classes == ("background", "foreground") and mask.sum() == 16
    empty = geojson(tmp_path / "c.geojson", [(box(1, 1, 5, 5), {"class": "x"}), (box(1, 1, 5, 5), {"class": None})])
    with pytest.raises(MaskError, match="class is empty in 1 of 2 polygons"):
        read_layer(empty, None)


def test_points_and_lines_are_left_out_and_counted(tmp_path):
    path = geojson(tmp_path / "a.geojson", FEATURES)
    content = json.loads(path.read_text())
    for kind, coordinates in (("Point", on_earth([(3, 3)])[0]), ("LineString", on_earth([(3, 3), (9, 9)]))):
        geometry = {"type": kind, "coordinates": coordinates}
        content["features"].append({"type": "Feature", "properties": {"class": "pole"}, "geometry": geometry})
    path.write_text(json.dumps(content))
    layer = read_layer(path, None)
    assert layer.left_out == 2 and layer_classes([layer]) == ("background", "house", "road")


def test_metres_called_degrees_are_refused(tmp_path):
    path = geojson(tmp_path / "a.geojson", FEATURES)
    content = json.loads(path.read_text())
    del content["crs"]
    path.write_text(json.dumps(content))
    with pytest.raises(MaskError, match="which are no degrees, but it names no other"):
        read_layer(path, None)


def test_outlines_need_an_image_that_says_where_it_is(tmp_path):
    layer = read_layer(geojson(tmp_path / "a.geojson", FEATURES), None)
    raster = open_geotiff(save_geotiff(tmp_path / "b.tif", ramp((1, H, W), "uint8"), crs=None), LIMITS)
    with pytest.raises(MaskError, match=r"a\.geojson: is in .*b\.tif says no reference system"):
        read_mask(VectorMask(layer, raster, layer_classes([layer])))


def test_outlines_elsewhere_leave_the_mask_empty(tmp_path, raster):
    mask, _ = burned(geojson(tmp_path / "a.geojson", [(box(1000, 1000, 1100, 1100), {"class": "x"})]), raster)
    assert mask.shape == (H, W) and not mask.any()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "a.geojson",
            b"<OGRVRTDataSource><OGRVRTLayer name='x'><SrcDataSource>/etc/passwd</SrcDataSource></OGRVRTLayer>",
        ),
        ("a.geojson", b"{" * 100_000),
        ("a.geojson", b'{"type": "FeatureCollection", "features": ['),
        ("a.geojson", b""),
        ("a.gpkg", b"SQLite format 3\0" + bytes(3000)),
        ("a.gpkg", b"x" * 100),
        ("a.shp", b"\0\0\x27\x0a" + bytes(300)),
        ("a.fgb", b"fgb\x03fgb\x00" + b"\xff" * 100),
    ],
)
def test_broken_and_foreign_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        read_layer(tmp_path / name, None)


def test_several_layers_are_refused(tmp_path):
    shapes = shapely.to_wkb(np.array([shapely.Polygon(on_earth(ring)) for ring, _ in FEATURES]))
    for layer in ("one", "two"):
        options = {"geometry_type": "Polygon", "crs": "EPSG:32616", "layer": layer, "append": layer == "two"}
        pyogrio.raw.write(tmp_path / "a.gpkg", shapes, [np.array([1, 2])], ["class"], **options)
    with pytest.raises(MaskError, match=r"holds 2 layers \(one, two\)"):
        read_layer(tmp_path / "a.gpkg", None)
