import numpy as np
import pyogrio.raw
import pytest
import rasterio
import shapely
from PIL import Image
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from convlora.data.labels.colours import class_colour
from convlora.data.readers.pairing import find_images
from convlora.errors import SettingsError
from convlora.inference import folder as folder_module
from convlora.inference.folder import predict_folder
from convlora.inference.georeferenced import mark_no_data
from tests.data.scientific.makers import save_geotiff
from tests.inference.known import Known
from tests.inference.test_folder import settings

TURNED = (0.4, 0.3, 733601.0, 0.3, -0.4, 3725139.0)
IN_WINDOWS = 0.005  # of megapixels: a tile of 64 pixels, but none of the rasters here


@pytest.fixture
def known(monkeypatch):
    def use(**options):
        predictor = Known(**options)
        monkeypatch.setattr(folder_module.Predictor, "from_folder", lambda *a, **k: predictor)
        return predictor

    return use


def patches(size, seed=0, channels=3):
    """Values from 1 to 254 in patches of some pixels, so that regions have shapes."""
    rng = np.random.default_rng(seed)
    small = rng.integers(1, 255, (channels, -(-size[0] // 4), -(-size[1] // 4)), dtype=np.uint8)
    return np.kron(small, np.ones((1, 4, 4), dtype=np.uint8))[:, : size[0], : size[1]]


def without_data(bands):
    """The same with no data in a rectangle and a pixel, and a lone 0 that is data."""
    bands[:, 30:55, 70:90] = bands[:, 3, 7] = 0
    bands[1, 10, 10] = 0
    return (bands == 0).all(axis=0)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def read(path):
    with rasterio.open(path) as raster:
        return raster.read(1)


@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("overlays", [False, True])
@pytest.mark.parametrize("polygons", [None, "geojson", "gpkg"])
def test_everything_that_is_written_of_a_raster_lies_on_its_grid(
    tmp_path, finished, known, probabilities, overlays, polygons
):
    predictor = known()
    bands = patches((80, 117))
    empty = without_data(bands)
    image = save_geotiff(tmp_path / "images" / "town.tif", bands, nodata=0, transform=TURNED)
    wanted = {"probabilities": probabilities, "overlays": overlays, "polygons": polygons}
    assert predict_folder(settings(finished, image.parent, tmp_path / "out", **wanted)) == [tmp_path / "out/town.tif"]
    files = ["town.tif"] + ["town_probability_1.tif", "town_probability_2.tif"] * probabilities
    assert names(tmp_path / "out") == sorted(
        [*files, *["town_overlay.png"] * overlays, *([f"town.{polygons}"] if polygons else [])]
    )
    expected = np.where(empty, 255, predictor.expected(bands))
    assert {0, 1, 2, 255} == set(np.unique(expected))
    with rasterio.open(image) as raster:
        for name in files:
            with rasterio.open(tmp_path / "out" / name) as written:
                assert (written.crs, written.transform, written.shape) == (raster.crs, raster.transform, raster.shape)
    with rasterio.open(tmp_path / "out" / "town.tif") as mask:
        np.testing.assert_array_equal(mask.read(1), expected)
        np.testing.assert_array_equal(mask.dataset_mask() == 0, empty)
        assert mask.nodata == 255 and mask.colormap(1)[2][:3] == class_colour(2)
        assert mask.tags(1)["CLASS_2"] == "big tree"
    if probabilities:
        above = bands[:2] - np.array([100.5, 150.5])[:, None, None]
        powers = np.exp(np.concatenate([np.zeros((1, 80, 117)), above]) - above.max(axis=0).clip(min=0))
        for i in (1, 2):
            wanted = np.where(empty, 0, powers[i] / powers.sum(axis=0)) * 65535
            assert np.abs(read(tmp_path / "out" / f"town_probability_{i}.tif") - wanted).max() <= 1
    if overlays:
        drawn = np.asarray(Image.open(tmp_path / "out" / "town_overlay.png"))
        tinted = (drawn != np.moveaxis(bands, 0, -1)).any(axis=-1)
        assert drawn.shape == (80, 117, 3) and not tinted[(expected == 0) | empty].any()
        assert tinted[(expected == 1) | (expected == 2)].mean() > 0.99  # but where the tint is what is there
    if polygons:
        np.testing.assert_array_equal(
            burned(tmp_path / "out" / f"town.{polygons}", image), np.where(expected == 255, 0, expected)
        )


def burned(path, raster_path):
    """Outlines on the grid of a raster, by GDAL."""
    meta, _, outlines, (class_ids, classes) = pyogrio.raw.read(path)
    assert [{1: "roof", 2: "big tree"}[i] for i in class_ids] == list(classes) and meta["geometry_type"] == "Polygon"
    polygons = shapely.from_wkb(outlines)
    assert shapely.is_valid(polygons).all()
    with rasterio.open(raster_path) as raster:
        if path.suffix == ".geojson":
            assert meta["crs"] == "EPSG:4326"
            placed = [transform_geom("EPSG:4326", raster.crs, shapely.geometry.mapping(p)) for p in polygons]
        else:
            assert rasterio.crs.CRS.from_user_input(meta["crs"]) == raster.crs
            placed = list(polygons)
        shapes = list(zip(placed, class_ids.tolist(), strict=True))
        return rasterize(shapes, raster.shape, transform=raster.transform, dtype="uint8")


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "options", [{}, {"nodata": 0}, {"nodata": 0, "tiled": True, "blockxsize": 32, "blockysize": 16}]
)
@pytest.mark.parametrize("size", [(200, 301), (64, 130), (130, 40)])
def test_a_raster_in_windows_gives_what_it_gives_in_memory(tmp_path, finished, known, classes, options, size):
    predictor = known(classes=classes)
    bands = patches(size)
    if "nodata" in options:
        bands[:, 20:40, 10:30] = 0
    image = save_geotiff(tmp_path / "images" / "town.tif", bands, transform=TURNED, **options)
    for name, megapixels in (("memory", 64.0), ("windows", IN_WINDOWS)):
        wanted = {"max_megapixels": megapixels, "polygons": "gpkg", "batch_size": 2}
        predict_folder(settings(finished, image.parent, tmp_path / name, **wanted))
        assert names(tmp_path / name) == ["town.gpkg", "town.tif"]
    expected = np.where((bands == 0).all(axis=0) & ("nodata" in options), 255, predictor.expected(bands))
    with rasterio.open(tmp_path / "memory/town.tif") as one, rasterio.open(tmp_path / "windows/town.tif") as other:
        np.testing.assert_array_equal(other.read(1), expected)
        assert one.profile == other.profile and one.tags(1) == other.tags(1) and one.colormap(1) == other.colormap(1)
    assert (tmp_path / "memory/town.tif").read_bytes() == (tmp_path / "windows/town.tif").read_bytes()
    outlines = [burned(tmp_path / name / "town.gpkg", image) for name in ("memory", "windows")]
    np.testing.assert_array_equal(*outlines)


@pytest.mark.parametrize("megapixels", [64.0, IN_WINDOWS])
def test_overlapping_classes_have_a_raster_each(tmp_path, finished, known, megapixels):
    predictor = known(multilabel=True)
    bands = patches((150, 100))
    empty = without_data(bands)
    image = save_geotiff(tmp_path / "images" / "town.tif", bands, nodata=0)
    wanted = {"max_megapixels": megapixels, "polygons": "geojson", "overlays": megapixels == 64.0}
    predict_folder(settings(finished, image.parent, tmp_path / "out", **wanted))
    fields = predictor.expected(bands)
    assert {0, 1, 2, 3} == set(np.unique(fields))
    for i, name in enumerate(("roof", "big-tree")):
        with rasterio.open(tmp_path / "out" / f"town_{name}.tif") as mask:
            np.testing.assert_array_equal(mask.read(1), np.where(empty, 255, fields >> i & 1))
            assert mask.nodata == 255 and mask.descriptions[0] == ("roof", "big tree")[i]
    _, _, outlines, (class_ids, _) = pyogrio.raw.read(tmp_path / "out" / "town.geojson")
    with rasterio.open(image) as raster:
        for class_id in (1, 2):
            own = [shapely.geometry.mapping(shapely.from_wkb(o)) for o in outlines[class_ids == class_id]]
            placed = [transform_geom("EPSG:4326", raster.crs, outline) for outline in own]
            mask = rasterize(placed, raster.shape, transform=raster.transform)
            np.testing.assert_array_equal(mask, np.where(empty, 0, fields >> (class_id - 1) & 1))
    if megapixels == 64.0:
        drawn = np.asarray(Image.open(tmp_path / "out" / "town_overlay.png"))
        assert not (drawn != np.moveaxis(bands, 0, -1))[empty].any()


@pytest.mark.parametrize("megapixels", [64.0, IN_WINDOWS])
@pytest.mark.parametrize("kind", ["uint16", "float32"])
def test_raw_channels_of_a_raster(tmp_path, finished, known, megapixels, kind):
    predictor = known(channels=5)
    bands = patches((150, 100), channels=5).astype(kind)
    bands[:, 40:50, 60:70] = 0
    image = save_geotiff(tmp_path / "images" / "town.tif", bands, nodata=0)
    predict_folder(settings(finished, image.parent, tmp_path / "out", max_megapixels=megapixels))
    expected = predictor.expected(bands)
    expected[40:50, 60:70] = 255
    np.testing.assert_array_equal(read(tmp_path / "out" / "town.tif"), expected)


@pytest.mark.parametrize("megapixels", [64.0, IN_WINDOWS])
def test_a_raster_with_a_transform_but_no_reference_system_keeps_what_it_has(tmp_path, finished, known, megapixels):
    known()
    image = save_geotiff(tmp_path / "images" / "town.tif", patches((100, 90)), crs=None)
    given = {"max_megapixels": megapixels}
    predict_folder(settings(finished, image.parent, tmp_path / "out", **given))
    with rasterio.open(tmp_path / "out" / "town.tif") as mask, rasterio.open(image) as raster:
        assert mask.crs is None and mask.transform == raster.transform
    for kind in ("gpkg", "geojson"):
        with pytest.raises(SettingsError, match=r"say their reference system, which 1 of 1 do not \(town\)"):
            predict_folder(settings(finished, image.parent, tmp_path / kind, polygons=kind, **given))
        assert not (tmp_path / kind).exists()


LOCAL = 'LOCAL_CS["site grid",UNIT["metre",1]]'


@pytest.mark.parametrize(
    ("crs", "transform", "message"),
    [
        (LOCAL, (1, 0, 0, 0, -1, 0), r"town\.tif: a part of it has no longitude and latitude"),
        ("EPSG:32616", (1e9, 0, 0, 0, -1e9, 0), r"town\.tif: a part of it has no longitude and latitude"),
        ("EPSG:32601", (2000, 0, 3e5, 0, -2000, 7e6), r"town\.tif: lies across 180"),
    ],
)
def test_rasters_that_degrees_cannot_hold_are_refused_as_geojson_before_anything_is_done(
    tmp_path, finished, known, crs, transform, message
):
    known()
    image = save_geotiff(tmp_path / "images" / "town.tif", patches((100, 90)), crs=crs, transform=transform)
    with pytest.raises(SettingsError, match=message + r".*polygons='gpkg' is not"):
        predict_folder(settings(finished, image.parent, tmp_path / "out", polygons="geojson"))
    assert not (tmp_path / "out").exists()
    predict_folder(settings(finished, image.parent, tmp_path / "out", polygons="gpkg"))
    np.testing.assert_array_equal(burned(tmp_path / "out" / "town.gpkg", image), read(tmp_path / "out" / "town.tif"))


def test_plain_pictures_beside_rasters_stay_pictures(tmp_path, finished, known):
    predictor = known()
    bands = patches((20, 30))
    image = save_geotiff(tmp_path / "images" / "town.tif", bands)
    Image.fromarray(np.moveaxis(bands, 0, -1)).save(image.parent / "yard.png")
    predict_folder(settings(finished, image.parent, tmp_path / "out", overlays=True, probabilities=True))
    ends = ("_overlay.png", "_probability_1{}", "_probability_2{}", "{}")
    expected = [name + end.format(suffix) for name, suffix in (("town", ".tif"), ("yard", ".png")) for end in ends]
    assert names(tmp_path / "out") == sorted(expected)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / "yard.png")), predictor.expected(bands))
    one, other = (tmp_path / "out" / f"{name}_probability_1{end}" for name, end in (("town", ".tif"), ("yard", ".png")))
    np.testing.assert_array_equal(read(one), np.asarray(Image.open(other)))
    with pytest.raises(SettingsError, match=r"1 of 2 do not \(yard\)"):
        predict_folder(settings(finished, image.parent, tmp_path / "other", polygons="gpkg"))


@pytest.mark.parametrize(("kind", "marked"), [("uint8", 255), ("int32", -1)])
def test_where_there_is_no_data_there_is_no_class_and_no_probability(tmp_path, kind, marked):
    bands = patches((20, 30))
    empty = np.zeros((20, 30), dtype=bool)
    empty[3:9, 4:20] = True
    bands[:, empty] = 0
    image = save_geotiff(tmp_path / "town.tif", bands, nodata=0)
    (sample,) = find_images(str(image))
    ids, probability = np.full((20, 30), 1, kind), np.full((20, 30), 65535, np.uint16)
    mark_no_data(sample, ids, [probability])
    np.testing.assert_array_equal(ids, np.where(empty, marked, 1))
    np.testing.assert_array_equal(probability, np.where(empty, 0, 65535))


def test_a_turned_raster_without_area_is_refused(tmp_path, finished, known):
    known()
    line = Affine(1, 1, 5e5, 1, 1, 4e6)
    image = save_geotiff(tmp_path / "images" / "town.tif", patches((20, 30)), transform=tuple(line)[:6])
    with pytest.raises(SettingsError, match="does not give each pixel its own place"):
        predict_folder(settings(finished, image.parent, tmp_path / "out", polygons="geojson"))
