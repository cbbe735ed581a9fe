import json

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.features import rasterize, shapes
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from convlora.data.scientific.geometry import RasterGeometry
from convlora.errors import OutputError
from convlora.inference import polygons as polygons_module
from convlora.inference.polygons import regions, write_polygons

NAMES = {0: "background", 1: "roof", 2: 'tree "é"'}
UTM = rasterio.crs.CRS.from_epsg(32616)
TRANSFORM = (0.05, 0.02, 733601.0, 0.02, -0.05, 3725139.0)


def geometry(size, crs=UTM, transform=TRANSFORM):
    return RasterGeometry("town.tif", size, None if crs is None else crs.to_wkt(), transform)


def in_bands(mask, cuts):
    return np.split(mask, sorted({cut % len(mask) for cut in cuts} - {0}))


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 255])),
    st.lists(st.integers(0, 100), max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_regions_do_not_depend_on_the_bands_and_are_those_of_gdal(mask, cuts):
    found = list(regions(in_bands(mask, cuts), nodata=255))
    assert all(region.geom_type == "Polygon" and region.is_valid for _, region in found)
    inside = (mask != 0) & (mask != 255)
    whole = [(int(value), shapely.geometry.shape(outline)) for outline, value in shapes(mask, mask=inside)]
    assert len(found) == len(whole)
    as_points = lambda pairs: sorted((value, shapely.normalize(region).wkt) for value, region in pairs)  # noqa: E731
    assert as_points(found) == as_points((value, shapely.simplify(region, 0)) for value, region in whole)
    if found:
        burned = rasterize([(region, value) for value, region in found], mask.shape, dtype="uint8")
        np.testing.assert_array_equal(burned, np.where(inside, mask, 0))


@pytest.mark.parametrize("kind", ["geojson", "gpkg"])
@pytest.mark.parametrize("batch", [1, 7, 100_000])
def test_outlines_in_batches_fall_back_onto_the_mask(tmp_path, monkeypatch, kind, batch):
    monkeypatch.setattr(polygons_module, "_BATCH", batch)
    mask = np.random.default_rng(0).integers(0, 3, (13, 17)).astype(np.uint8)
    path = tmp_path / f"a [1].{kind}"
    write_polygons(path, regions(in_bands(mask, [5, 6]), 255), geometry(mask.shape), NAMES)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    meta, _, outlines, (class_ids, classes) = pyogrio.raw.read(path)
    assert list(classes) == [NAMES[i] for i in class_ids] and len(outlines) > 40
    polygons = [shapely.geometry.mapping(shapely.from_wkb(outline)) for outline in outlines]
    if kind == "geojson":
        polygons = [transform_geom("EPSG:4326", UTM, polygon) for polygon in polygons]
    assert rasterio.crs.CRS.from_user_input(meta["crs"]) == ("EPSG:4326" if kind == "geojson" else UTM)
    burned = rasterize(
        list(zip(polygons, class_ids.tolist(), strict=True)), mask.shape, transform=Affine(*TRANSFORM), dtype="uint8"
    )
    np.testing.assert_array_equal(burned, mask)


def test_geojson_is_as_its_standard_says(tmp_path):
    mask = np.zeros((9, 9), dtype=np.uint8)
    mask[1:8, 1:8], mask[3:5, 3:5], mask[0, 0] = 1, 0, 2
    write_polygons(tmp_path / "a.geojson", regions([mask], 255), geometry(mask.shape), NAMES)
    content = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection" and "crs" not in content and len(content["features"]) == 2
    for feature in content["features"]:
        assert (
            feature["type"] == "Feature" and NAMES[feature["properties"]["class_id"]] == feature["properties"]["class"]
        )
        outer, *holes = (shapely.LinearRing(ring) for ring in feature["geometry"]["coordinates"])
        assert outer.is_ccw and not any(hole.is_ccw for hole in holes)
        assert -85 < outer.coords[0][0] < -84 and 33 < outer.coords[0][1] < 34
    assert sorted(len(feature["geometry"]["coordinates"]) for feature in content["features"]) == [1, 2]


@pytest.mark.parametrize("kind", ["geojson", "gpkg"])
def test_a_mask_without_classes_gives_a_file_without_outlines(tmp_path, kind):
    empty = np.full((5, 6), 255, dtype=np.uint8)
    write_polygons(tmp_path / f"a.{kind}", regions([empty, 0 * empty], 255), geometry((10, 6)), NAMES)
    assert len(pyogrio.raw.read(tmp_path / f"a.{kind}")[2]) == 0


@pytest.mark.parametrize("kind", ["geojson", "gpkg"])
def test_what_fails_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(polygons_module, "_BATCH", 2)
    path = tmp_path / f"a [1].{kind}"
    path.write_text("old")

    def stopped():
        for i in range(5):
            yield 1, shapely.box(i, 0, i + 1, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_polygons(path, stopped(), geometry((10, 10)), NAMES)
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == [path.name]


def test_outlines_without_a_reference_system_are_refused(tmp_path):
    with pytest.raises(OutputError, match=r"town\.tif says no reference system"):
        write_polygons(tmp_path / "a.gpkg", [], geometry((3, 3), crs=None), NAMES)
    assert not list(tmp_path.iterdir())
