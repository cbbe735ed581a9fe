import numpy as np
import pytest
from scipy import ndimage

from convlora.data.findings.measuring import histogram, measure, small_grey
from convlora.data.samples import Sample
from convlora.data.settings import ImageLimits
from convlora.errors import DataError
from tests.data.files import noise, save


def measured(tmp_path, image, mask, **options):
    files = save(tmp_path / "image.png", image), save(tmp_path / "mask.png", mask)
    return measure(Sample("s", *files), ImageLimits(), **options)


def test_figures_of_a_pair_equal_those_by_hand(tmp_path):
    image, mask = noise(64, 96), noise(64, 96, 1, seed=1) % 3
    item = measured(tmp_path, image, mask, details=True)
    grey = image.astype(float) @ [0.299, 0.587, 0.114]
    assert item.size == (64, 96) and item.values == {i: int((mask == i).sum()) for i in range(3)}
    # each level is rounded twice, by the mean and by the conversion to grey
    assert np.abs(item.thumbnail - grey.reshape(32, 2, 32, 3).mean((1, 3))).max() <= 1.5
    assert item.brightness == pytest.approx(grey.mean(), abs=1)
    frame = np.ones(mask.shape, dtype=bool)
    frame[1:-1, 1:-1] = False
    for value in range(3):
        assert item.frame[value] == pytest.approx((mask[frame] == value).mean())
        areas = np.bincount(ndimage.label(mask == value, np.ones((3, 3)) if value else None)[0].ravel())[1:]
        found, counts = item.details.objects[value]
        np.testing.assert_array_equal(np.repeat(found, counts), np.sort(areas))


def test_tones_are_the_mean_grey_under_each_value(tmp_path):
    mask = np.repeat([[0, 7]], 40, axis=0).repeat(20, axis=1).astype(np.uint8)
    item = measured(tmp_path, np.where(mask == 7, 200, 50).astype(np.uint8), mask)
    assert item.tones == {0: 50.0, 7: 200.0} and item.details is None


def test_equal_pixels_have_equal_digests_and_others_do_not(tmp_path):
    mask = np.zeros((8, 8), dtype=np.uint8)
    digests = [measured(tmp_path / str(i), noise(8, 8, seed=i // 2), mask).digest for i in range(4)]
    assert digests[0] == digests[1] != digests[2] == digests[3]


def test_a_mask_of_another_size_is_refused(tmp_path):
    with pytest.raises(DataError, match="7 x 8 pixels"):
        measured(tmp_path, noise(8, 8), np.zeros((7, 8), dtype=np.uint8))


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).integers(0, 300, (9, 11)),
        np.random.default_rng(1).integers(-5, 5, (9, 11)),
        np.random.default_rng(2).choice([0, 70_000, 2**30], (9, 11)),
        np.random.default_rng(3).choice([np.iinfo(np.int32).min, 0, 3], (9, 11)),
        np.full((2, 2), np.iinfo(np.int32).min),
    ],
    ids=["small", "negative", "large", "no data", "no data at all"],
)
def test_histograms_equal_numpys(values):
    found, counts = np.unique(values, return_counts=True)
    assert histogram(values.astype(np.int32)) == dict(zip(found.tolist(), counts.tolist(), strict=True))


def test_an_image_smaller_than_a_thumbnail_is_enlarged():
    assert small_grey(noise(3, 5), (32, 32)).shape == (32, 32)
