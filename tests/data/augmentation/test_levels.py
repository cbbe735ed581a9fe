import numpy as np
from scipy import ndimage

from convlora.data.augmentation.levels import blurred, noisy, with_gamma
from tests.data.files import noise


def test_gamma_is_the_power_of_each_level():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for exponent in (0.5, 1.0, 1.7):
        want = np.rint(255 * (image / 255) ** exponent)
        np.testing.assert_array_equal(with_gamma(image, exponent), want)


def test_noise_has_the_deviation_that_is_asked_for_and_comes_again_with_its_seed():
    grey = np.full((200, 200, 3), 128, dtype=np.uint8)
    got = noisy(grey, 0.05, 3)
    np.testing.assert_array_equal(got, noisy(grey, 0.05, 3))
    assert not np.array_equal(got, noisy(grey, 0.05, 4))
    difference = got.astype(float) - 128
    # 120,000 values: standard errors 0.037 and 0.026; rounding adds 1/12 to the variance of 162.6
    assert abs(difference.mean()) < 0.15 and abs(difference.std() - 255 * 0.05) < 0.15
    assert noisy(grey, 0.0, 3) is grey


def test_levels_are_clipped_and_not_wrapped():
    black = np.zeros((64, 64, 3), dtype=np.uint8)
    assert noisy(black, 0.05, 0).max() < 100
    assert noisy(255 - black, 0.05, 0).min() > 150


def test_a_blur_takes_each_channel_by_itself():
    image = noise(40, 50)
    for channel in range(3):
        want = ndimage.gaussian_filter(image[..., channel].astype(float), 1.5, truncate=3.0)
        assert np.abs(blurred(image, 1.5)[..., channel] - want).max() <= 0.51
    assert blurred(image, 0.0) is image
