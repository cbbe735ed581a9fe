import json
import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_iou

from convlora.objectives.metrics import (
    DEFINITIONS,
    LOWER_IS_BETTER,
    balanced_error_rate,
    best,
    bootstrap_interval,
    confusion_matrix,
    foreground,
    per_class,
    summarize,
)
from convlora.objectives.saliency import SaliencyMeasures
from tests.objectives.pairs import IGNORED, random_pairs


def masks(classes, seed=0, images=6, absent=()):
    """Pairs of prediction and truth of several sizes: about 70 % right, 20 % ignored."""
    generator = np.random.default_rng(seed)
    pairs = []
    for _ in range(images):
        size = tuple(generator.integers(8, 30, 2))
        truth = generator.integers(0, classes, size)
        truth[np.isin(truth, absent)] = 0
        prediction = np.where(generator.random(size) < 0.7, truth, generator.integers(0, classes, size))
        truth[generator.random(size) < 0.2] = IGNORED
        pairs.append((prediction, truth))
    return pairs


def matrices(pairs, classes):
    return [confusion_matrix(prediction, truth, classes) for prediction, truth in pairs]


def one_hot(ids, classes):
    return torch.from_numpy(np.moveaxis(np.eye(classes)[ids], -1, 0))[None, ..., None]


def mean_by_monai(score, pairs, classes, first):
    """MONAI's score of the valid pixels of all pairs as one image, mean over the classes from `first` that occur."""
    prediction = np.concatenate([prediction[truth != IGNORED] for prediction, truth in pairs])
    truth = np.concatenate([truth[truth != IGNORED] for _, truth in pairs])
    scores = score(one_hot(prediction, classes), one_hot(truth, classes), ignore_empty=False)[0].numpy()
    occurring = [k for k in range(first, classes) if k in prediction or k in truth]
    return np.mean([scores[k] for k in occurring]) if occurring else 1.0


def error_rate(pairs):
    """As a shadow paper writes it: 1 − (TP / positives + TN / negatives) / 2, in percent."""
    tp = sum(((p == 1) & (t == 1)).sum() for p, t in pairs)
    tn = sum(((p == 0) & (t == 0)).sum() for p, t in pairs)
    return 100 * (1 - (tp / sum((t == 1).sum() for _, t in pairs) + tn / sum((t == 0).sum() for _, t in pairs)) / 2)


def scores_by_definition(pairs, classes):
    scores = {
        "iou": mean_by_monai(compute_iou, pairs, classes, 1),
        "dice": mean_by_monai(compute_dice, pairs, classes, 1),
        "miou": mean_by_monai(compute_iou, pairs, classes, 0),
        "iou_per_image": np.mean([mean_by_monai(compute_iou, [pair], classes, 1) for pair in pairs]),
        "dice_per_image": np.mean([mean_by_monai(compute_dice, [pair], classes, 1) for pair in pairs]),
        "pixel_accuracy": sum((p == t).sum() for p, t in pairs) / sum((t != IGNORED).sum() for _, t in pairs),
    }
    if classes == 2:
        scores |= {"ber": error_rate(pairs), "ber_per_image": np.mean([error_rate([pair]) for pair in pairs])}
    return scores


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_an_independent_implementation(classes, seed):
    pairs = masks(classes, seed)
    assert summarize(matrices(pairs, classes)) == pytest.approx(scores_by_definition(pairs, classes), rel=1e-12)


NAMES = ("iou", "dice", "miou", "pixel_accuracy", "ber", "iou_per_image", "dice_per_image", "ber_per_image")


def plain_scores(prediction, truth, classes):
    """The first five of `NAMES`, of some pixels, class by class."""
    if not truth.size:
        return [math.nan] * 5
    ious, dices, recalls = {}, {}, []
    for k in range(classes):
        predicted, there = prediction == k, truth == k
        both, either = np.sum(predicted & there), np.sum(predicted | there)
        if either:
            ious[k], dices[k] = both / either, 2 * both / (predicted.sum() + there.sum())
        if there.any():
            recalls.append(both / there.sum())
    iou, dice = ([score[k] for k in score if k > 0] or [1.0] for score in (ious, dices))
    iou, dice, miou, recall = (sum(scores) / len(scores) for scores in (iou, dice, [*ious.values()], recalls))
    return [iou, dice, miou, np.mean(prediction == truth), 100 * (1 - recall)]


@pytest.mark.parametrize("classes", [2, 5])
def test_scores_of_ten_thousand_pairs_alone_and_in_sets_equal_plain_formulas(classes):
    pairs = random_pairs(classes)
    confusions = [confusion_matrix(pair.prediction, pair.truth, classes) for pair in pairs]
    alone = np.array([plain_scores(*pair.counted, classes) for pair in pairs])
    found, wanted = [], []
    for start, length in [*((i, 1) for i in range(len(pairs))), *((i, 20) for i in range(0, len(pairs), 20))]:
        part = slice(start, start + length)
        scores = summarize(confusions[part])
        found.append([scores.get(name, math.nan) for name in NAMES])
        pixels = zip(*(pair.counted for pair in pairs[part]), strict=True)
        pooled = alone[start] if length == 1 else plain_scores(*map(np.concatenate, pixels), classes)
        valid = alone[part][~np.isnan(alone[part, 0])]
        wanted.append([*pooled, *(valid.mean(0) if len(valid) else alone[start])[[0, 1, 4]]])
    undefined = [classes > 2 and name.startswith("ber") for name in NAMES]
    np.testing.assert_allclose(found, np.where(undefined, math.nan, wanted), rtol=1e-12, atol=1e-12)


def test_the_random_pairs_hold_every_odd_case_hundreds_of_times():
    pairs = random_pairs()
    truths = [pair.truth[pair.valid] for pair in pairs]
    cases = {
        "nothing valid": [not truth.size for truth in truths],
        "empty": [truth.size and not truth.any() for truth in truths],
        "full": [truth.size and truth.all() for truth in truths],
        "one pixel of foreground": [truth.sum() == 1 for truth in truths],
        "ignored pixels": [0 < truth.size < pair.truth.size for truth, pair in zip(truths, pairs, strict=True)],
        "at most 4 pixels": [pair.truth.size <= 4 for pair in pairs],
        "a probability of one half": [(pair.probability == 0.5).any() for pair in pairs],
    }
    assert {name: sum(map(bool, found)) for name, found in cases.items() if sum(map(bool, found)) < 200} == {}


def test_the_best_score_is_the_least_error_or_the_largest_of_the_others():
    assert set(LOWER_IS_BETTER) < set(DEFINITIONS)
    assert (best(iter([2, 1, 3]), "ber"), best(iter([2, 1, 3]), "mae"), best(iter([2, 1, 3]), "iou")) == (1, 1, 3)
    truth = np.array([[0, 1, 1, 0]])
    right, wrong = ([confusion_matrix(prediction, truth, 2)] for prediction in (truth, 1 - truth))
    for name, score in summarize(right).items():
        assert best([score, summarize(wrong)[name]], name) == score


def test_a_class_that_never_occurs_is_left_out_and_one_only_predicted_counts_as_missed():
    pairs = masks(6, absent=(3, 5))
    pairs = [(np.where(prediction == 5, 0, prediction), truth) for prediction, truth in pairs]
    found = summarize(matrices(pairs, 6))
    assert found == pytest.approx(scores_by_definition(pairs, 6), rel=1e-12)
    iou, dice = per_class(np.sum(matrices(pairs, 6), axis=0))
    assert np.isnan(iou[5])
    assert np.isnan(dice[5])
    assert iou[3] == dice[3] == 0


def test_every_definition_is_computed_and_every_score_defined():
    confusions = matrices(masks(2), 2)
    assert {*summarize(confusions), *SaliencyMeasures().summary()} == set(DEFINITIONS)
    several = {name for name, text in DEFINITIONS.items() if "binary tasks only" not in text}
    assert set(summarize(matrices(masks(3), 3))) == several


def test_scores_can_be_written_as_json():
    assert json.loads(json.dumps(summarize(matrices(masks(2), 2)))).keys() == summarize(matrices(masks(2), 2)).keys()


def test_rows_are_the_truth_and_columns_the_prediction():
    prediction, truth = np.array([[0, 1, 1, 2]]), np.array([[0, 0, 1, IGNORED]])
    assert confusion_matrix(prediction, truth, 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("classes", [2, 5])
def test_the_prediction_at_ignored_pixels_changes_nothing(classes):
    pairs = masks(classes)
    # 77 is no class at all: what a model says there is not looked at
    others = [(np.where(truth == IGNORED, 77, prediction), truth) for prediction, truth in pairs]
    assert summarize(matrices(pairs, classes)) == summarize(matrices(others, classes))


@pytest.mark.parametrize("classes", [2, 4])
def test_an_image_without_a_valid_pixel_counts_nowhere(classes):
    confusions = matrices(masks(classes), classes)
    assert summarize([*confusions, np.zeros((classes, classes), int)]) == summarize(confusions)


def test_a_set_without_a_valid_pixel_has_no_score():
    assert all(math.isnan(score) for score in summarize([np.zeros((2, 2), int)] * 3).values())


def test_an_empty_image_scores_one_if_nothing_was_predicted_and_zero_otherwise():
    empty = np.zeros((4, 4), int)
    one_pixel = np.pad([[1]], (0, 3))
    right, wrong = (confusion_matrix(prediction, empty, 2) for prediction in (empty, one_pixel))
    assert foreground(right) == (1, 1)
    assert foreground(wrong) == (0, 0)
    assert summarize([right])["iou"] == summarize([right])["dice"] == summarize([right])["miou"] == 1
    assert summarize([right, wrong])["dice_per_image"] == 0.5
    assert summarize([right, wrong])["dice"] == 0


def test_error_rate_is_over_the_classes_that_are_there():
    assert balanced_error_rate(np.array([[8, 2], [0, 0]])) == pytest.approx(20)
    assert balanced_error_rate(np.array([[0, 0], [1, 3]])) == pytest.approx(25)
    assert math.isnan(balanced_error_rate(np.zeros((2, 2), int)))


def test_pooled_and_per_image_error_rates_differ_as_the_literature_and_the_released_code_do():
    small, large = np.array([[90, 10], [5, 5]]), np.array([[100, 0], [0, 900]])
    scores = summarize([small, large])
    assert scores["ber"] == pytest.approx(100 * (1 - (190 / 200 + 905 / 910) / 2))
    assert scores["ber_per_image"] == pytest.approx((100 * (1 - (0.9 + 0.5) / 2) + 0) / 2)


@pytest.mark.parametrize(("classes", "shape"), [(2, (7,)), (5, (3, 2))])
def test_stacks_of_matrices_give_the_scores_of_each(classes, shape):
    stack = np.random.default_rng(0).integers(0, 50, (*shape, classes, classes))
    flat = stack.reshape(-1, classes, classes)
    for score in (per_class, foreground):
        for together, alone in zip(score(stack), zip(*map(score, flat), strict=True), strict=True):
            np.testing.assert_array_equal(together.reshape(len(flat), -1), np.array(alone).reshape(len(flat), -1))
    np.testing.assert_array_equal(balanced_error_rate(stack).ravel(), [balanced_error_rate(matrix) for matrix in flat])


@pytest.mark.filterwarnings("error")
def test_degenerate_sets_give_no_warning():
    summarize([np.zeros((2, 2), int), np.array([[0, 0], [0, 4]]), np.array([[3, 0], [0, 0]])])


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "differ in size"),
        (np.full((2, 2), 2), np.zeros((2, 2), int), "prediction holds classes outside 0…1"),
        (np.zeros((2, 2), int), np.full((2, 2), 7), "truth holds classes outside 0…1"),
        (np.full((2, 2), -1), np.zeros((2, 2), int), "prediction holds classes outside 0…1"),
    ],
)
def test_masks_that_do_not_fit_are_refused(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(prediction, truth, 2)


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="no image"):
        summarize([])


def accuracy(confusions):
    return summarize(confusions)["pixel_accuracy"]


def images_of_accuracy(draws):
    return [np.array([[round(100 * x), 0], [100 - round(100 * x), 0]]) for x in draws]


def test_the_interval_is_the_normal_one_for_a_mean_of_many_images():
    draws = np.random.default_rng(1).beta(8, 2, 300)
    low, high = bootstrap_interval(images_of_accuracy(draws), accuracy)
    half = 1.96 * draws.std() / math.sqrt(300)
    # the 2.5 % quantile of 1000 draws has a standard error of 8 % of `half`
    assert low == pytest.approx(draws.mean() - half, abs=0.25 * half)
    assert high == pytest.approx(draws.mean() + half, abs=0.25 * half)


def test_nine_of_ten_intervals_at_90_percent_cover_the_truth():
    generator = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        confusions = images_of_accuracy(generator.beta(8, 2, 40))
        low, high = bootstrap_interval(confusions, accuracy, seed=seed, resamples=200, level=0.9)
        covered += low <= 0.8 <= high
    assert 165 <= covered <= 193  # 180 less the usual 1–2 % of a percentile interval at 40 images, ± 3 deviations


def test_the_interval_depends_on_the_seed_only():
    confusions = images_of_accuracy(np.random.default_rng(3).random(20))
    first = bootstrap_interval(confusions, accuracy, resamples=100)
    assert first == bootstrap_interval(confusions, accuracy, resamples=100)
    assert first != bootstrap_interval(confusions, accuracy, resamples=100, seed=1)


def test_images_are_drawn_not_pixels():
    """Two images of accuracy 0 and 1 leave the mean anywhere from 0 to 1, however many pixels they have."""
    confusions = [np.array([[10**6, 0], [0, 0]]), np.array([[0, 10**6], [0, 0]])]
    assert bootstrap_interval(confusions, accuracy) == (0, 1)


def test_a_single_image_has_an_interval_of_one_point():
    confusion = np.array([[30, 10], [5, 55]])
    assert bootstrap_interval([confusion], accuracy, resamples=10) == (0.85, 0.85)
