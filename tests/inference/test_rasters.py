import numpy as np
import pytest
import rasterio

from convlora.data.scientific.geometry import RasterGeometry
from convlora.errors import OutputError
from convlora.inference import rasters
from convlora.inference.rasters import write_raster

CRS = rasterio.crs.CRS.from_epsg(32616)
SIZE = (1300, 37)


def geometry(size=SIZE):
    return RasterGeometry("town.tif", size, CRS.to_wkt(), (0.5, 0.1, 7e5, 0.1, -0.5, 4e6))


def values(dtype="uint8"):
    return np.random.default_rng(0).integers(0, 255, SIZE).astype(dtype)


@pytest.mark.parametrize("cuts", [[], [1], [512, 1024], [511, 513, 514], range(7, 1300, 7), [1299]])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_bands_of_any_heights_make_the_same_raster(tmp_path, cuts, dtype):
    path = tmp_path / "a.tif"
    nodata = 255 if dtype == "uint8" else None
    write_raster(path, iter(np.split(values(dtype), list(cuts))), geometry(), dtype=dtype, nodata=nodata)
    with rasterio.open(path) as raster:
        np.testing.assert_array_equal(raster.read(1), values(dtype))
        assert raster.crs == CRS and tuple(raster.transform)[:6] == geometry().transform and raster.nodata == nodata
        assert raster.block_shapes == [(512, 512)] and raster.dtypes == (dtype,)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]


def test_what_is_not_written_as_it_should_be_is_an_error_and_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    path.write_text("old")
    with pytest.raises(ValueError, match="1299 rows for a raster of 1300"):
        write_raster(path, [values()[1:]], geometry())
    checksum = rasters._checksum
    monkeypatch.setattr(rasters, "_checksum", lambda dataset: checksum(dataset) ^ 1)  # as on a full disk
    with pytest.raises(OutputError, match="what was written is not what is read back"):
        write_raster(path, [values()], geometry())
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == ["a.tif"]


def test_blocks_that_wait_do_not_fill_the_memory_of_a_large_machine(tmp_path):
    seen = []

    def bands():
        seen.append(rasterio._env.get_gdal_config("GDAL_CACHEMAX"))
        yield values()

    write_raster(tmp_path / "a.tif", bands(), geometry())
    assert seen == [64]
