import numpy as np
import pytest
import rasterio

from convlora.inference import folder as folder_module
from convlora.inference.folder import predict_folder
from tests.data.scientific.makers import save_geotiff
from tests.inference.test_folder import Fixed, settings


@pytest.mark.parametrize("probabilities", [False, True])
def test_the_mask_of_a_raster_is_a_raster_on_its_grid_with_or_without_probabilities(
    tmp_path, finished, monkeypatch, probabilities
):
    monkeypatch.setattr(folder_module.Predictor, "from_folder", lambda *a, **k: Fixed())
    bands = np.random.default_rng(0).integers(1, 255, (3, 20, 31), dtype=np.uint8)
    bands[:, 3:5, 7] = 0
    image = save_geotiff(tmp_path / "images" / "town.tif", bands, nodata=0)
    given = settings(finished, image.parent, tmp_path / "out", probabilities=probabilities)
    predict_folder(given)
    with rasterio.open(tmp_path / "out" / "town.tif") as mask, rasterio.open(image) as raster:
        assert (mask.crs, mask.transform, mask.shape) == (raster.crs, raster.transform, raster.shape)
        expected = np.where((bands == 0).all(axis=0), 255, bands[0] > 100)
        np.testing.assert_array_equal(mask.read(1), expected)
    there = (tmp_path / "out" / "town_probability.tif").is_file()
    assert there is probabilities
