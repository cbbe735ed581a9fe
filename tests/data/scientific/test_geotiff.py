import time

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp

from convlora.data.labels.format import NO_DATA
from convlora.data.pixels.images import image_size, read_image
from convlora.data.pixels.masks import read_mask
from convlora.data.scientific.geotiff import GeoImage, GeoMask, WhereData, open_geotiff
from convlora.data.scientific.grids import require_equal_grids
from convlora.data.scientific.kinds import image_kind
from convlora.data.settings import ImageLimits
from convlora.errors import ImageError, MaskError
from tests.data.scientific.makers import L2A, percentile_window, ramp, save_geotiff, through

LIMITS = ImageLimits()
H, W = 24, 37
TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]


def raster(path, bands, **options):
    return open_geotiff(save_geotiff(path, bands, **options), LIMITS)


@pytest.mark.parametrize(
    "layout", [{}, {"compress": "deflate", "predictor": 2}, {"tiled": True, "blockxsize": 16, "blockysize": 16}]
)
@pytest.mark.parametrize("dtype", TYPES)
def test_bands_of_every_type_come_as_they_are(tmp_path, dtype, layout):
    if "predictor" in layout and dtype[0] == "f":
        layout = {"compress": "lzw", "predictor": 3}
    bands = ramp((3, H, W), dtype)
    found = raster(tmp_path / "a.tif", bands, **layout)
    assert image_kind(tmp_path / "a.tif") == "geotiff"
    assert (found.size, found.channels, found.dtype, found.rgb) == ((H, W), 3, dtype, (0, 1, 2))
    raw = GeoImage(found, 0).read_channels(LIMITS)
    assert raw.dtype == dtype
    np.testing.assert_array_equal(raw, np.moveaxis(bands, 0, -1))
    picture = read_image(GeoImage(found, 0))
    want = [band if dtype == "uint8" else through(band, *percentile_window(band)) for band in bands]
    np.testing.assert_array_equal(picture, np.stack(want, axis=-1))
    assert picture.flags.c_contiguous and picture.flags.writeable


def test_it_knows_its_place_on_earth(tmp_path):
    part = GeoImage(raster(tmp_path / "a.tif", ramp((1, H, W), "uint8")), 0)
    assert part.geometry.transform == L2A["EPSG:32616"] and part.geometry.size == (H, W)
    assert rasterio.crs.CRS.from_wkt(part.geometry.crs).to_epsg() == 32616
    assert image_size(part) == (H, W)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), dtype=st.sampled_from(["uint8", "uint16", "float32"]), tiled=st.booleans())
def test_any_window_is_a_part_of_the_whole(tmp_path, data, dtype, tiled):
    top, left = data.draw(st.integers(0, H - 1)), data.draw(st.integers(0, W - 1))
    height, width = data.draw(st.integers(1, H - top)), data.draw(st.integers(1, W - left))
    options = {"tiled": True, "blockxsize": 16, "blockysize": 16} if tiled else {}
    path = tmp_path / f"{dtype}{tiled}.tif"
    if not path.exists():
        bands = ramp((3, H, W), dtype)
        bands[:, :4, :5] = 7
        save_geotiff(path, bands, nodata=7, **options)
    part = GeoImage(open_geotiff(path, LIMITS), 0)
    whole = read_image(part)
    got = part.read_window(top, left, height, width, LIMITS)
    np.testing.assert_array_equal(got, whole[top : top + height, left : left + width])


def test_windows_of_a_raster_beyond_the_limit_can_be_read_but_not_all_of_it(tmp_path):
    bands = ramp((1, H, W), "uint8")
    part = GeoImage(raster(tmp_path / "a.tif", bands), 0)
    small = ImageLimits(max_pixels=100)
    np.testing.assert_array_equal(part.read_window(3, 4, 10, 10, small)[..., 0], bands[0, 3:13, 4:14])
    for call in (
        lambda: part.read_image(small),
        lambda: part.size(small),
        lambda: part.read_window(0, 0, 11, 10, small),
    ):
        with pytest.raises(ImageError, match="megapixels, more than"):
            call()
    for box in ((-1, 0, 2, 2), (0, 0, H + 1, 1), (0, W, 1, 1), (0, 0, 0, 1)):
        with pytest.raises(ImageError):
            part.read_window(*box, LIMITS)


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("uint8", 0), ("uint16", 9), ("int16", -9999), ("float32", -1e30), ("float32", np.nan), ("float32", None)],
)
def test_pixels_without_data_are_black_ignored_and_not_in_the_percentiles(tmp_path, dtype, nodata):
    bands = ramp((1, H, W), dtype)
    missing = np.zeros((H, W), dtype=bool)
    missing[2:5, 7:] = True
    value = np.nan if nodata is None else nodata
    bands[0][(bands[0] == value) & ~missing] = 1
    bands[0][missing] = value
    found = raster(tmp_path / "a.tif", bands, nodata=nodata)
    part = GeoImage(found, 0)
    there = bands[0][~missing]
    want = bands[0].copy() if dtype == "uint8" else through(bands[0], *percentile_window(there))
    want[missing] = 0
    np.testing.assert_array_equal(read_image(part)[..., 0], want)
    raw = part.read_channels(LIMITS)
    assert raw.dtype == np.float32 and np.isnan(raw[missing]).all()
    np.testing.assert_array_equal(raw[~missing][:, 0], there.astype(np.float32))
    ids = ramp((H, W), "uint8") % 3
    mask_path = tmp_path / "mask.tif"
    mask = WhereData(GeoMask(raster(mask_path, ids[None])), found)
    np.testing.assert_array_equal(read_mask(mask), np.where(missing, NO_DATA, ids.astype(np.int32)))


@pytest.mark.parametrize("kind", ["internal mask", "external mask", "alpha"])
def test_masks_of_the_data_set_and_alpha_say_where_data_are(tmp_path, kind):
    bands = ramp((3, H, W), "uint8")
    there = ramp((H, W), "bool")
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "height": H, "width": W, "dtype": "uint8", "crs": "EPSG:32616"}
    affine = rasterio.transform.Affine(*L2A["EPSG:32616"])
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "internal mask"),
        rasterio.open(path, "w", count=4 if kind == "alpha" else 3, transform=affine, **profile) as dataset,
    ):
        dataset.write(bands, [1, 2, 3])
        if kind == "alpha":
            dataset.write(there * np.uint8(255), 4)
            dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        else:
            dataset.write_mask(there)
    assert (tmp_path / "a.tif.msk").exists() == (kind == "external mask")
    found = open_geotiff(path, LIMITS)
    assert found.channels == 3
    np.testing.assert_array_equal(
        read_image(GeoImage(found, 0)), np.where(there[..., None], np.moveaxis(bands, 0, -1), 0)
    )
    ids = raster(tmp_path / "ids.tif", np.ones((1, H, W), dtype=np.uint8))
    np.testing.assert_array_equal(read_mask(WhereData(GeoMask(ids), found)), np.where(there, 1, NO_DATA))


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_a_raw_channel_lacks_data_where_its_own_band_does(tmp_path, dtype):
    bands = ramp((3, H, W), dtype)
    bands[0, 2, 3] = bands[:, 4, 5] = 9
    bands[1:, 2, 3], bands[bands == 7] = 5, 8
    expected = np.moveaxis(bands, 0, -1).astype(np.float32)
    expected[expected == 9] = np.nan
    found = GeoImage(raster(tmp_path / "a.tif", bands, nodata=9), 0)
    values = found.read_channels(LIMITS)
    assert values.dtype == np.float32 and np.isnan(values[2, 3]).tolist() == [True, False, False]
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(found.read_channels_window(1, 2, 4, 5, LIMITS), expected[1:5, 2:7])


def test_the_zero_of_a_mask_is_background_and_another_nodata_is_ignored(tmp_path):
    ids = ramp((H, W), "uint8") % 4
    zero = GeoMask(raster(tmp_path / "zero.tif", ids[None], nodata=0))
    np.testing.assert_array_equal(read_mask(zero), ids)
    three = GeoMask(raster(tmp_path / "three.tif", ids[None], nodata=3))
    np.testing.assert_array_equal(read_mask(three), np.where(ids == 3, NO_DATA, ids.astype(np.int32)))


def test_a_palette_gives_colours_of_an_image_and_numbers_of_a_mask(tmp_path):
    values, table = ramp((1, H, W), "uint8") % 7, ramp((7, 3), "uint8")
    path = save_geotiff(tmp_path / "a.tif", values, photometric="palette")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {i: (*map(int, colour), 255) for i, colour in enumerate(table)})
    found = open_geotiff(path, LIMITS)
    np.testing.assert_array_equal(read_image(GeoImage(found, 0)), table[values[0]])
    np.testing.assert_array_equal(read_mask(GeoMask(found)), values[0])


def test_bands_that_say_their_colours_are_taken_in_that_order_and_others_need_channels(tmp_path):
    bands = ramp((5, H, W), "uint8")
    path = save_geotiff(tmp_path / "a.tif", bands)
    with pytest.raises(ImageError, match=r"a\.tif: has 5 channels.*--channels 5"):
        read_image(GeoImage(open_geotiff(path, LIMITS), 0))
    with rasterio.open(path, "r+") as dataset:
        dataset.colorinterp = [
            ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined, ColorInterp.undefined
        ]  # fmt: skip
    part = GeoImage(open_geotiff(path, LIMITS), 0)
    if part.stack.rgb is None:  # kept in a file beside it, which is not read
        pytest.skip("GDAL stores these colours outside of the file")
    np.testing.assert_array_equal(read_image(part), np.moveaxis(bands[[2, 1, 0]], 0, -1))


def test_white_is_zero_is_inverted(tmp_path):
    values = ramp((1, H, W), "uint8")
    found = raster(tmp_path / "a.tif", values, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(GeoImage(found, 0))[..., 0], 255 - values[0])


def test_overviews_are_not_shown(tmp_path):
    bands = ramp((1, 64, 64), "uint8")
    path = save_geotiff(tmp_path / "a.tif", bands, tiled=True, blockxsize=16, blockysize=16)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4], rasterio.enums.Resampling.average)
    np.testing.assert_array_equal(read_image(GeoImage(open_geotiff(path, LIMITS), 0))[..., 0], bands[0])


def test_a_large_raster_is_sampled_evenly_and_always_alike(tmp_path, monkeypatch):
    values = ramp((1, 900, 800), "uint16")
    found = raster(tmp_path / "a.tif", values, compress="deflate")
    whole = percentile_window(values)
    monkeypatch.setattr("convlora.data.scientific.stacks.MOST_SAMPLED", 20_000)
    sample = found.sample(LIMITS)
    assert 10_000 < len(sample) <= 21_000
    np.testing.assert_array_equal(sample, found.sample(LIMITS))
    assert np.abs(np.percentile(sample, (0.5, 99.5)) - whole).max() < 600  # a hundredth of the range


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crs": "EPSG:32617"}, r"reference system EPSG:32617 instead of EPSG:32616"),
        ({"transform": (0.5, 0, 733602.0, 0, -0.5, 3725139.0)}, r"transform .*733602.* instead of .*733601"),
        ({"transform": (0.5, 0, 733601.0, 0, 0.5, 3725139.0)}, r"transform .* instead of"),
        ({"shape": (1, H, W + 1)}, r"24 x 38 pixels \(height x width\) instead of 24 x 37"),
        ({"transform": (0.5, 0, 733601.0 + 1e-7, 0, -0.5, 3725139.0)}, None),
        ({"crs": None}, None),
    ],
)
def test_a_mask_must_lie_where_its_image_lies(tmp_path, change, message):
    image = raster(tmp_path / "image.tif", ramp((1, H, W), "uint16"))
    change = dict(change)
    mask = raster(tmp_path / "mask.tif", ramp(change.pop("shape", (1, H, W)), "uint8"), **change)
    if message is None:
        require_equal_grids(image, mask)
        return
    with pytest.raises(MaskError, match=rf"mask\.tif does not lie on the grid of its image .*image\.tif: {message}"):
        require_equal_grids(image, mask)


@pytest.mark.parametrize(
    ("bands", "options", "message"),
    [
        (np.zeros((1, 4, 4), dtype=np.complex64), {}, "values of type complex64 cannot be shown"),
        (
            np.zeros((1, 20000, 20000), dtype=np.uint8),
            {"SPARSE_OK": True, "tiled": True, "blockxsize": 20000, "blockysize": 20000, "write": False},
            "must be decoded whole",
        ),
    ],
)
def test_rasters_that_cannot_be_read_well_are_refused(tmp_path, bands, options, message):
    path = tmp_path / "a.tif"
    options = dict(options)
    write = options.pop("write", True)
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype.name,
    }
    affine = rasterio.transform.Affine(*L2A["EPSG:32616"])
    with rasterio.open(path, "w", **profile, crs="EPSG:32616", transform=affine, **options) as dataset:
        if write:
            dataset.write(bands)
    started = time.perf_counter()
    with pytest.raises(ImageError, match=message):
        open_geotiff(path, LIMITS)
    assert time.perf_counter() - started < 1


def test_other_rasters_that_gdal_knows_are_not_opened(tmp_path):
    source = save_geotiff(tmp_path / "a.tif", ramp((1, H, W), "uint8"))
    text = f'<VRTDataset rasterXSize="{W}" rasterYSize="{H}"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    text += f"<SourceFilename>{source}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    (tmp_path / "b.tif").write_text(text)
    with pytest.raises(ImageError, match=r"b\.tif: damaged"):
        open_geotiff(tmp_path / "b.tif", LIMITS)
