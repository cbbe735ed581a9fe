import math

import numpy as np
import pytest

from convlora.objectives.saliency import SaliencyMeasures

pytestmark = pytest.mark.filterwarnings("error")


def scores(*images):
    measures = SaliencyMeasures()
    for image in images:
        measures.add(*image)
    return measures.summary()


def block(size=(40, 50), rows=slice(12, 28), columns=slice(15, 33)):
    truth = np.zeros(size, bool)
    truth[rows, columns] = True
    return truth


def noisy(seed=0, size=(40, 50)):
    """A probability map (float32, as a model gives it) and its truth."""
    truth = block(size)
    return np.random.default_rng(seed).random(size, np.float32) * 0.6 + 0.4 * truth, truth


# E-measure: the sum over pixels is divided by their number less one; of 256 thresholds the lowest, 0, takes all pixels
# for foreground, which scores 1/4 (alignment 0, squared after adding 1)
PIXELS = 40 * 50
E_SCALE = PIXELS / (PIXELS - 1)


def test_a_perfect_prediction_scores_one():
    truth = block()
    found = scores((truth.astype(np.float32), truth))
    want = {"mae": 0, "s_measure": 1, "e_measure": (255 + 1 / 4) / 256 * E_SCALE, "weighted_f": 1}
    assert found == pytest.approx(want, abs=1e-9)


def test_a_prediction_of_nothing_scores_by_hand():
    truth = block()
    share = truth.mean()
    found = scores((np.zeros(truth.shape), truth))
    assert found["mae"] == pytest.approx(share)
    assert found["e_measure"] == pytest.approx(E_SCALE / 4)  # constant at every threshold
    assert found["weighted_f"] == pytest.approx(0, abs=1e-9)
    # object part: the background is right; every quadrant holds a part of the block, so no region is similar
    assert found["s_measure"] == pytest.approx((1 - share) / 2)


def test_a_constant_half_has_the_structure_measure_derived_by_hand():
    """Left half of 8 × 8 is foreground. Object part: 2·½ / (¼ + 1) = 0.8 on both sides. Region part: the centroid
    is in column 2, so the first three columns are constant in both maps (1) and the other five are not (0)."""
    truth = block((8, 8), slice(None), slice(4))
    assert scores((np.full((8, 8), 0.5), truth))["s_measure"] == pytest.approx(0.5 * 0.8 + 0.5 * 3 / 8)


@pytest.mark.parametrize("confidence", [0.2, 0.5, 0.9])
def test_an_unsure_foreground_has_the_weighted_f_derived_by_hand(confidence):
    """The error is 1 − p on all of the foreground, so recall is p, and precision is 1."""
    truth = block()
    want = 2 * confidence / (1 + confidence)
    assert scores((confidence * truth, truth))["weighted_f"] == pytest.approx(want)


@pytest.mark.parametrize("distance", [1, 5, 11])
def test_a_false_pixel_weighs_more_far_from_the_foreground(distance):
    truth = block()
    prediction = truth.astype(float)
    prediction[20, 32 + distance] = 1
    weight = 2 - 0.5 ** (distance / 5)
    precision = truth.sum() / (truth.sum() + weight)
    assert scores((prediction, truth))["weighted_f"] == pytest.approx(2 * precision / (1 + precision))


@pytest.mark.parametrize("level", [64, 128, 200])
def test_the_e_measure_of_two_levels_is_the_mean_over_thresholds(level):
    """A block that is `level`/255 sure: right for thresholds 1…level, nothing above, everything at 0."""
    truth = block()
    prediction = np.where(truth, (level + 0.5) / 255, 0.0)
    want = (level + (256 - level) / 4) / 256 * E_SCALE
    assert scores((prediction, truth))["e_measure"] == pytest.approx(want)


def test_an_image_without_foreground():
    empty = np.zeros((40, 50), bool)
    found = scores((np.zeros(empty.shape), empty))
    # no recall is defined: pysodmetrics gives 0 as the field does
    want = {"mae": 0, "s_measure": 1, "e_measure": 255 / 256 * E_SCALE, "weighted_f": 0}
    assert found == pytest.approx(want)
    assert scores((np.full(empty.shape, 0.3), empty))["s_measure"] == pytest.approx(0.7)


def test_an_image_of_foreground_only():
    full = np.ones((40, 50), bool)
    found = scores((np.ones(full.shape), full))
    assert found == pytest.approx({"mae": 0, "s_measure": 1, "e_measure": E_SCALE, "weighted_f": 1}, abs=1e-9)


@pytest.mark.parametrize(
    "truth",
    [
        block(rows=slice(5, 6), columns=slice(7, 8)),
        block(rows=slice(39, 40), columns=slice(49, 50)),
        block(rows=slice(39, 40)),
        block(columns=slice(49, 50)),
        block((1, 9), slice(None), slice(3)),
        ~block(rows=slice(5, 6), columns=slice(7, 8)),
    ],
    ids=["one pixel", "the last pixel", "last row", "last column", "one row", "all but one pixel"],
)
def test_tiny_objects_and_objects_at_the_edge_have_a_structure_measure(truth):
    assert scores((truth.astype(float), truth))["s_measure"] == pytest.approx(1)
    assert scores((1.0 - truth, truth))["s_measure"] < 0.5


def test_mae_is_the_mean_absolute_difference_of_each_image():
    images = [noisy(0), noisy(1, (31, 44))]
    want = np.mean([np.abs(p.astype(float) - t).mean() for p, t in images])
    assert scores(*images)["mae"] == pytest.approx(want)


def test_the_summary_is_the_mean_over_images_of_any_size():
    images = [noisy(0), noisy(1, (31, 44)), noisy(2, (64, 40))]
    alone = [scores(image) for image in images]
    want = {name: np.mean([one[name] for one in alone]) for name in alone[0]}
    assert scores(*images) == pytest.approx(want)


def test_a_better_prediction_scores_better_in_every_measure():
    prediction, truth = noisy()
    worse, better = scores((prediction, truth)), scores(((prediction + truth) / 2, truth))
    assert better["mae"] < worse["mae"]
    assert all(better[name] > worse[name] for name in ("s_measure", "e_measure", "weighted_f"))


def test_probabilities_are_not_stretched():
    truth = block()
    assert scores((0.5 * truth, truth))["mae"] == pytest.approx(truth.mean() / 2)


def test_ignored_pixels_change_nothing_whatever_they_hold():
    prediction, truth = noisy()
    valid = np.random.default_rng(5).random(truth.shape) < 0.7
    found = scores((prediction, truth, valid))
    other = scores((np.where(valid, prediction, 1.0), np.where(valid, truth, ~truth), valid))
    assert found == other
    assert found["mae"] == pytest.approx(np.abs(prediction.astype(float) - truth)[valid].mean())


def test_ignored_pixels_count_as_right_background_in_the_measures_of_structure():
    prediction, truth = noisy()
    valid = np.ones(truth.shape, bool)
    valid[:, 25:] = False
    found, cut = scores((prediction, truth, valid)), scores((prediction * valid, truth & valid))
    assert {**found, "mae": 0} == {**cut, "mae": 0}
    assert found["mae"] > cut["mae"]


def test_nothing_ignored_is_the_same_as_no_valid_mask():
    prediction, truth = noisy()
    assert scores((prediction, truth, np.ones(truth.shape, bool))) == scores((prediction, truth))


def test_an_image_without_a_valid_pixel_is_left_out():
    prediction, truth = noisy()
    assert scores((prediction, truth), (prediction, truth, np.zeros(truth.shape, bool))) == scores((prediction, truth))


def test_no_image_has_no_score():
    assert all(math.isnan(score) for score in scores().values())
    assert scores().keys() == scores(noisy()).keys()


def test_a_truth_of_bytes_is_taken_for_what_it_is():
    prediction, truth = noisy()
    assert scores((prediction, truth.astype(np.uint8))) == scores((prediction, truth))
