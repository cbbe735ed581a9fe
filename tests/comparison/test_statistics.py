import itertools

import numpy as np
import pytest

from convlora.comparison.statistics import (
    difference_estimate,
    estimate,
    holm,
    image_draws,
    pooled_score,
    resampled_scores,
    score_estimate,
)
from convlora.objectives.metrics import summarize


def random_matrices(rng, *shape, classes=3):
    return rng.integers(0, 50, (*shape, classes, classes))


def counts_of_all_draws(images):
    """Every way of drawing `images` images with replacement, as counts: images ** images rows, all as likely."""
    draws = np.array(list(itertools.product(range(images), repeat=images)))
    return (draws[..., None] == np.arange(images)).sum(1)


@pytest.mark.parametrize(
    ("metric", "classes"), [*itertools.product(["iou", "dice", "pixel_accuracy"], [2, 4]), ("ber", 2)]
)
def test_a_pooled_score_is_that_of_the_metrics(metric, classes):
    matrices = random_matrices(np.random.default_rng(0), 5, classes=classes)
    assert pooled_score(matrices.sum(0), metric) == pytest.approx(summarize(matrices)[metric], abs=1e-15)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="'iuo' must be iou, dice, pixel_accuracy, ber"):
        pooled_score(np.eye(2), "iuo")


def test_resampled_scores_are_those_of_the_images_drawn_one_by_one():
    rng = np.random.default_rng(1)
    matrices = random_matrices(rng, 2, 4)
    draws = rng.integers(4, size=(20, 4))
    counts = (draws[..., None] == np.arange(4)).sum(1)
    found = resampled_scores(matrices, "iou", [counts[:7], counts[7:]])
    wanted = [[summarize([seed[i] for i in draw])["iou"] for seed in matrices] for draw in draws]
    np.testing.assert_allclose(found, wanted, atol=1e-15)


def test_the_interval_of_one_seed_is_that_of_all_possible_draws():
    matrices = random_matrices(np.random.default_rng(2), 1, 5)
    exact = resampled_scores(matrices, "iou", [counts_of_all_draws(5)])[:, 0]  # 3125 draws
    found = score_estimate(matrices, "iou")
    factor = np.sqrt(5 / 4) * 2.776445 / 1.959964  # 0.975 quantiles of t with 4 degrees of freedom and of the normal
    share_below = [(exact <= found.mean + (end - found.mean) / factor).mean() for end in (found.low, found.high)]
    # 10,000 draws miss a quantile of 0.025 by 0.0016 (one sigma); the exact one is a step function, so a little more
    assert share_below == pytest.approx([0.025, 0.975], abs=0.008)
    assert found.sd is None and found.seeds == 1


def test_without_noise_of_the_images_the_interval_is_the_t_interval():
    scores = np.array([0.80, 0.82, 0.87])
    found = estimate(scores, np.tile(scores, (40_000, 1)), 40, bounds=(0, 1))
    half = 4.302653 * scores.std(ddof=1) / np.sqrt(3)  # 0.975 quantile of t with 2 degrees of freedom, from tables
    assert found.mean == pytest.approx(0.83) and found.sd == pytest.approx(scores.std(ddof=1))
    # the sampled quantile has a relative error of about 2 % (sqrt(.025 · .975 / 40000) / 0.0107 / 4.3)
    assert (found.low, found.high) == pytest.approx((0.83 - half, 0.83 + half), abs=0.06 * half)


def test_error_rates_are_in_percent_and_so_are_their_intervals():
    all_wrong = np.tile([[0, 10], [10, 0]], (2, 4, 1, 1))
    all_right = np.tile([[10, 0], [0, 10]], (2, 4, 1, 1))
    for matrices, rate in ((all_wrong, 100), (all_right, 0)):
        found = score_estimate(matrices, "ber")
        assert (found.mean, found.low, found.high) == (rate, rate, rate)
    found = difference_estimate(all_right, all_wrong, "ber")
    assert (found.mean, found.low, found.high) == (-100, -100, -100)


def test_intervals_stay_within_what_a_score_can_be():
    found = estimate(np.array([0.1, 0.9]), np.tile([0.1, 0.9], (1000, 1)), 40, bounds=(0, 1))
    assert (found.low, found.high) == (0.0, 1.0)


def simulated(rng, seeds, images, methods=1, *, seed_noise=0.06, image_noise=0.25):
    """Binary confusion matrices (methods, seeds, images, 2, 2); the true score is that of a noiseless image, 0.6."""
    hits = 0.6 + seed_noise * rng.normal(size=(methods, seeds, 1))
    hits = hits + image_noise * rng.uniform(-1, 1, (1, 1, images)) + 0.1 * rng.uniform(-1, 1, (methods, seeds, images))
    pixels = np.full(hits.shape, 10_000)
    found = (hits.clip(0, 1) * pixels).astype(int)
    missed = pixels - found
    zero = np.zeros_like(found)
    return np.stack([np.stack([zero, zero], -1), np.stack([missed, found], -1)], -2)  # IoU = hits / pixels, pooled


@pytest.mark.parametrize(("seeds", "seed_noise"), [(3, 0.06), (3, 0.0), (5, 0.02)])
def test_a_95_percent_interval_covers_the_truth_in_about_95_percent_of_studies(seeds, seed_noise):
    rng = np.random.default_rng(3)
    studies, images = 400, 40
    draws = list(image_draws(images, 1000))
    covered = 0
    for _ in range(studies):
        matrices = simulated(rng, seeds, images, seed_noise=seed_noise)[0]
        scores = pooled_score(matrices.sum(1), "iou")
        found = estimate(scores, resampled_scores(matrices, "iou", draws), images, bounds=(0, 1))
        covered += found.low <= 0.6 <= found.high
    # 95 % ± 1.1 % (one sigma of 400 studies); it may err a little to the wide side, where both noises add up
    assert 0.92 <= covered / studies <= 0.99


def test_p_values_are_about_uniform_where_two_methods_are_equal():
    rng = np.random.default_rng(4)
    studies, images = 400, 40
    draws = list(image_draws(images, 1000))
    p_values = []
    for _ in range(studies):
        first, second = simulated(rng, 3, images, methods=2, seed_noise=0.05)
        scores = pooled_score(first.sum(1), "iou") - pooled_score(second.sum(1), "iou")
        resampled = resampled_scores(first, "iou", draws) - resampled_scores(second, "iou", draws)
        p_values.append(estimate(scores, resampled, images, bounds=(-1, 1)).p_value)
    for level in (0.05, 0.2, 0.5):
        sigma = np.sqrt(level * (1 - level) / studies)
        assert level - 4 * sigma <= np.mean(np.array(p_values) <= level) <= level + 3 * sigma


@pytest.mark.parametrize(("images", "most"), [(4, 0.12), (8, 0.10), (15, 0.09)])  # 25, 12 and 10 % if not widened
def test_few_images_do_not_make_p_small(images, most):
    rng = np.random.default_rng(10)
    studies = 400
    draws = list(image_draws(images, 1000))
    rejected = 0
    for _ in range(studies):
        gap = rng.normal(0, 0.1, images)  # of two methods, by image, with mean 0
        hits = (1000 * (rng.normal(0.6, 0.1, images) + np.stack([gap, -gap]) / 2).clip(0, 1)).astype(int)
        zero = np.zeros_like(hits)
        first, second = np.stack([np.stack([zero, zero], -1), np.stack([1000 - hits, hits], -1)], -2)[:, None]
        scores = pooled_score(first.sum(1), "iou") - pooled_score(second.sum(1), "iou")
        resampled = resampled_scores(first, "iou", draws) - resampled_scores(second, "iou", draws)
        rejected += estimate(scores, resampled, images, bounds=(-1, 1)).p_value < 0.05
    assert 0.02 <= rejected / studies <= most  # one sigma of 5 % in 400 studies is 1.1 %


def test_one_image_gives_a_mean_and_nothing_else():
    rng = np.random.default_rng(11)
    found = difference_estimate(random_matrices(rng, 3, 1), random_matrices(rng, 3, 1), "iou")
    assert np.isfinite(found.mean) and (found.low, found.high, found.p_value, found.images) == (None, None, None, 1)


def test_fewer_seeds_than_an_interval_needs_give_none():
    rng = np.random.default_rng(12)
    matrices = random_matrices(rng, 2, 5)
    assert score_estimate(matrices[:1], "iou", least=2).low is None
    assert score_estimate(matrices, "iou", least=2).low is not None


def test_a_clear_difference_is_found_and_has_its_sign():
    better, worse = simulated(np.random.default_rng(5), 3, 40, methods=2, seed_noise=0.002)
    better[..., 1, 1] += better[..., 1, 0] // 2
    better[..., 1, 0] -= better[..., 1, 0] // 2
    found = difference_estimate(better, worse, "iou")
    assert 0 < found.low < found.mean < found.high and found.p_value < 0.05
    back = difference_estimate(worse, better, "iou")
    assert back.mean == -found.mean and back.high < 0


def test_a_paired_difference_is_narrower_than_the_scores_where_images_differ_much():
    first, second = simulated(np.random.default_rng(6), 5, 40, methods=2, seed_noise=0.001, image_noise=0.35)
    difference, score = difference_estimate(first, second, "iou"), score_estimate(first, "iou")
    assert difference.high - difference.low < 0.5 * (score.high - score.low)


def test_a_method_does_not_differ_from_itself():
    matrices = random_matrices(np.random.default_rng(7), 3, 6)
    found = difference_estimate(matrices, matrices, "iou")
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_differences_need_the_same_seeds_and_images():
    rng = np.random.default_rng(8)
    with pytest.raises(ValueError, match="differ in seeds, images or classes"):
        difference_estimate(random_matrices(rng, 2, 4), random_matrices(rng, 3, 4), "iou")


def test_images_without_a_valid_pixel_count_nowhere():
    matrices = random_matrices(np.random.default_rng(9), 2, 5)
    matrices[:, 1:3] = 0
    assert score_estimate(matrices, "iou") == score_estimate(matrices[:, [0, 3, 4]], "iou")
    matrices[:] = 0
    assert score_estimate(matrices, "iou") is None and difference_estimate(matrices, matrices, "ber") is None


def test_draws_of_many_numbers_come_in_small_parts():
    rows = [len(part) for part in image_draws(6, 5000, width=100_000)]
    assert sum(rows) == 5000 and max(rows) * 100_000 <= 4_000_000


def test_draws_are_the_same_whatever_their_parts(monkeypatch):
    whole = np.concatenate(list(image_draws(6, 100)))
    monkeypatch.setattr("convlora.comparison.statistics._CHUNK", 60)
    parts = list(image_draws(6, 100))
    assert len(parts) == 10 and np.array_equal(np.concatenate(parts), whole)
    assert (whole.sum(1) == 6).all()


def test_holm_adjusts_as_in_the_textbook():
    # 3 · 0.01; 2 · 0.03; 1 · 0.04, but no less than the one before
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
