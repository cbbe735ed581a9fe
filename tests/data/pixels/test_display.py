import numpy as np
import pytest

from convlora.data.pixels.display import visible_rgb


def ramp(channels=4, dtype="float32"):
    values = np.arange(100 * 100).reshape(100, 100, 1) * 10 + np.arange(channels) * 1000
    return values.astype(dtype)


def test_a_picture_is_shown_as_it_is():
    image = np.random.default_rng(0).integers(0, 99, (5, 6, 3), dtype=np.uint8)
    assert visible_rgb(image) is image


def test_channels_are_stretched_from_their_2nd_to_their_98th_percentile():
    got = visible_rgb(ramp()).astype(float)
    assert got.dtype == float and got.shape == (100, 100, 3)
    want = ((np.arange(10_000) / 9_999 - 0.02) / 0.96 * 255).clip(0, 255)
    np.testing.assert_allclose(got[..., 0].ravel(), want, atol=0.51)
    np.testing.assert_array_equal(got[..., 0], got[..., 2])  # an offset makes no difference


@pytest.mark.parametrize(
    ("channels", "chosen", "shown"),
    [(1, None, (0, 0, 0)), (2, None, (0, 1, 1)), (5, None, (0, 1, 2)), (5, [4], (4, 4, 4)), (5, [3, 0, 1], (3, 0, 1))],
)
def test_the_channels_that_are_shown(channels, chosen, shown):
    image = np.random.default_rng(0).normal(size=(30, 30, channels))
    got = visible_rgb(image, chosen)
    for place, channel in enumerate(shown):
        want = visible_rgb(image[..., [channel] * 3])
        np.testing.assert_array_equal(got[..., place], want[..., place])


def test_one_value_is_grey_and_no_data_is_black():
    image = np.full((20, 20, 3), 5.0, "float32")
    image[:2, :, 1] = np.nan
    image[..., 2] = np.nan
    got = visible_rgb(image)
    assert set(np.unique(got[..., 0])) == {128} and not got[..., 2].any()
    assert not got[:2, :, 1].any() and (got[2:, :, 1] == 128).all()
    image[..., 0] = 0
    image[3, 4, 0] = 9  # so rare that both percentiles are 0
    assert visible_rgb(image)[3, 4, 0] == 255
