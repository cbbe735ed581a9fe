import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convlora.data.findings.checking import check_data
from convlora.data.pixels import statistics as module
from convlora.data.pixels.statistics import ChannelStatistics, Moments
from convlora.data.settings import DataSettings
from convlora.errors import DataError


def of(*images):
    return ChannelStatistics.of(Moments.of(image) for image in images)


def images(dtype="float32", count=4, channels=3, offset=0.0, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(5, 30, (count, 2))
    return [(rng.normal(offset, 20, (*size, channels)) + np.arange(channels) * 9).astype(dtype) for size in sizes]


def pooled(given):
    return np.concatenate([image.reshape(-1, image.shape[2]) for image in given]).astype(np.float64)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("offset", [100.0, 30_000.0])
def test_mean_and_deviation_equal_numpys_over_all_pixels(dtype, offset, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 50)  # several blocks an image
    given = images(dtype, offset=offset if dtype != "uint8" else 100.0)
    got, want = of(*given), pooled(given)
    np.testing.assert_allclose(got.mean, want.mean(0), rtol=1e-12)
    np.testing.assert_allclose(got.std, want.std(0), rtol=1e-9)
    assert got.low == tuple(want.min(0)) and got.high == tuple(want.max(0)) and got.types == (dtype,)


def test_a_small_spread_far_from_0_is_not_lost():
    """Sums of squares would be 1e12 with a spread of 1e-10 of it: nothing would remain in float64."""
    given = [image.astype(np.float64) / 2e5 + 1e6 for image in images(offset=0.0)]
    np.testing.assert_allclose(of(*given).std, pooled(given).std(0), rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 0.9), count=st.integers(1, 5))
def test_pixels_without_data_count_nowhere(seed, share, count):
    given, rng = images(count=count, seed=seed), np.random.default_rng(seed)
    for image in given:
        image[rng.random(image.shape) < share] = np.nan
        image[0, 0] = 1
    got, want = of(*given), pooled(given)
    np.testing.assert_allclose(got.mean, np.nanmean(want, axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(got.std, np.nanstd(want, axis=0), rtol=1e-9, atol=1e-9)
    assert got.missing == np.isnan(want).any(1).sum()


def test_a_channel_without_any_data_is_named_and_one_of_one_value_is_not_divided_by_0():
    empty = np.zeros((5, 6, 3), "float32")
    empty[..., 1] = np.nan
    with pytest.raises(DataError, match=r"channel 1 \(from 0\) of the training images is NaN throughout"):
        of(empty)
    assert of(np.full((5, 6, 2), 7, "uint8")).normalisation(None) == ([7.0, 7.0], [1.0, 1.0])
    assert of(np.full((5, 6, 2), 7, "uint8")).notes("data") == ["channels that have one value throughout: 0, 1"]


def test_sams_own_statistics_are_for_the_first_three_channels_of_8_bits():
    rgb = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    measured = of(*images("uint8", channels=5, offset=100.0))
    mean, std = measured.normalisation(rgb)
    assert mean[:3] == (np.float32(rgb[0]) * np.float32(255)).astype(float).tolist()
    assert std[:3] == (np.float32(rgb[1]) * np.float32(255)).astype(float).tolist()
    assert (mean[3:], std[3:]) == (list(measured.mean[3:]), list(measured.std[3:]))
    with pytest.raises(DataError, match="8 bits, uint8, and these are uint16"):
        of(*images("uint16", offset=500.0)).normalisation(rgb)


def test_they_survive_json_bit_for_bit():
    got = of(*images())
    assert ChannelStatistics.from_json(json.loads(json.dumps(got.as_json()))) == got


def test_a_check_measures_the_training_images_that_are_used_and_no_others(tmp_path):
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    given = {}
    for i, image in enumerate(images(count=12, channels=5, offset=400.0)):
        given[f"s{i:02d}"] = image
        np.save(tmp_path / "images" / f"s{i:02d}.npy", image)
        Image.fromarray(np.arange(image[..., 0].size, dtype=np.uint8).reshape(image.shape[:2]) % 2).save(
            tmp_path / "masks" / f"s{i:02d}.png"
        )
    settings = DataSettings(
        images=str(tmp_path / "images"), masks=str(tmp_path / "masks"), channels=5, train_images=5, test_fraction=0.25
    )
    checked = check_data(settings)
    names = [sample.name for sample in checked.splits["train"]]
    assert len(names) == 5
    want = pooled([given[name] for name in names])
    np.testing.assert_allclose(checked.statistics.mean, want.mean(0), rtol=1e-12)
    np.testing.assert_allclose(checked.statistics.std, want.std(0), rtol=1e-9)
    with pytest.raises(DataError, match="channel_statistics='sam' is for images of 8 bits"):
        check_data(DataSettings(**{**vars(settings), "channel_statistics": "sam"}))
