"""The measures of `convlora.objectives.saliency` against pysodmetrics itself, and against the papers' formulas."""

import math

import numpy as np
import pytest
from py_sod_metrics import Emeasure, Smeasure, WeightedFmeasure

from convlora.objectives.saliency import SaliencyMeasures, s_measure
from tests.objectives.pairs import random_pairs

pytestmark = [pytest.mark.filterwarnings("error"), pytest.mark.xdist_group("saliency")]

EPS = np.spacing(1)  # the papers' code adds it to every denominator
NAMES = ("mae", "s_measure", "e_measure", "weighted_f")


@pytest.fixture(scope="module")
def pairs():
    return [pair for pair in random_pairs() if pair.valid.any()]


@pytest.fixture(scope="module")
def found(pairs):
    """Every measure of each image alone."""
    results = []
    for pair in pairs:
        measures = SaliencyMeasures()
        measures.add(pair.probability, pair.truth == 1, pair.valid)
        results.append(measures.summary())
    return {name: np.array([result[name] for result in results]) for name in NAMES}


def whole(pair):
    """What the measures of structure see: ignored pixels are background that was rightly predicted."""
    return np.where(pair.valid, pair.probability, 0).astype(float), pair.truth == 1


def quadrants(truth):
    """The four parts around the centroid of the foreground, which is rounded to even and belongs to the upper left."""
    row, column = (int(np.round(places.mean())) + 1 for places in np.nonzero(truth))
    return [
        (rows, columns) for rows in (slice(row), slice(row, None)) for columns in (slice(column), slice(column, None))
    ]


def s_by_paper(p, g):
    """Fan et al. 2017; one value has no deviation, and a part in which nothing varies is like any other such part."""
    if g.all() or not g.any():
        return p.mean() if g.all() else 1 - p.mean()

    def object_score(x):
        deviation = x.std(ddof=1) if x.size > 1 else 0.0
        return 2 * x.mean() / (x.mean() ** 2 + 1 + deviation + EPS)

    def similarity(x, y):
        if x.size <= 1:
            return 1.0
        (x_variance, covariance), (_, y_variance) = np.cov(x.ravel(), y.ravel().astype(float))
        if x.min() == x.max() and y.min() == y.max():
            return 1.0
        product = (x.mean() ** 2 + y.mean() ** 2) * (x_variance + y_variance)
        return 4 * x.mean() * y.mean() * covariance / (product + EPS)

    objects = g.mean() * object_score(p[g]) + (1 - g.mean()) * object_score(1 - p[~g])
    regions = sum(g[part].size / g.size * similarity(p[part], g[part]) for part in quadrants(g))
    return max(0.0, 0.5 * objects + 0.5 * regions)


def e_by_paper(p, g):
    """Fan et al. 2018 at 256 thresholds; the sum is divided by the pixels less one, as in the paper's code."""
    maps = (np.floor(255 * p) >= np.arange(256)[:, None, None]).astype(float)
    if g.all() or not g.any():
        enhanced = maps if g.all() else 1 - maps
    else:
        a, b = maps - maps.mean((1, 2), keepdims=True), g - g.mean()
        enhanced = (1 + 2 * a * b / (a**2 + b**2)) ** 2 / 4
    return enhanced.sum((1, 2)).mean() / max(g.size - 1, 1)


def weighted_f_by_paper(p, g):
    """Margolin et al. 2014, β² = 1; None where the nearest foreground pixel, whose error is taken, is not unique."""
    if not g.any():
        return 0.0
    error = np.abs(p - g)
    places, objects = np.argwhere(np.ones_like(g)), np.argwhere(g)
    squared = ((places[:, None] - objects) ** 2).sum(-1)
    nearest = squared == squared.min(1, keepdims=True)
    taken = np.where(nearest, error[g], np.nan)
    if (np.nanmax(taken, 1) > np.nanmin(taken, 1)).any():
        return None
    rows, columns = np.mgrid[-3:4, -3:4]
    kernel = np.exp(-(rows**2 + columns**2) / (2 * 5**2))
    around = np.lib.stride_tricks.sliding_window_view(np.pad(np.nanmax(taken, 1).reshape(g.shape), 3), (7, 7))
    smoothed = (around * kernel / kernel.sum()).sum((2, 3))
    importance = np.where(g, 1, 2 - 0.5 ** (np.sqrt(squared.min(1)).reshape(g.shape) / 5))
    weighted = np.where(g, np.minimum(error, smoothed), error) * importance
    hits, false = g.sum() - weighted[g].sum(), weighted[~g].sum()
    recall, precision = 1 - weighted[g].mean(), hits / (hits + false + EPS)
    return 2 * recall * precision / (recall + precision + EPS)


def test_mae_of_ten_thousand_pairs_is_the_mean_over_valid_pixels(pairs, found):
    wanted = [np.abs(pair.probability.astype(float) - (pair.truth == 1))[pair.valid].mean() for pair in pairs]
    np.testing.assert_allclose(found["mae"], wanted, rtol=1e-12, atol=1e-12)


def test_e_and_weighted_f_of_ten_thousand_pairs_are_pysodmetrics(pairs, found):
    wanted = []
    for pair in pairs:
        e, f = Emeasure(), WeightedFmeasure()
        for measure in (e, f):
            measure.step(*whole(pair), normalize=False)
        wanted.append((e.get_results()["em"]["curve"].mean(), f.get_results()["wfm"]))
    several = np.array([pair.truth.size > 1 for pair in pairs])  # of one pixel the library divides by 0
    e, f = np.array(wanted).T
    np.testing.assert_allclose(found["e_measure"][several], e[several], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found["weighted_f"], f, rtol=1e-12, atol=1e-12)


def test_s_of_ten_thousand_pairs_is_pysodmetrics_where_that_is_defined(pairs, found):
    defined = 0
    for pair, value in zip(pairs, found["s_measure"], strict=True):
        p, g = whole(pair)
        mixed = g.any() and not g.all()
        if mixed and min(g.sum(), (~g).sum(), *(g[part].size for part in quadrants(g))) < 2:
            continue  # the library divides by 0
        defined += mixed
        assert value == pytest.approx(Smeasure().cal_sm(p, g), rel=1e-12, abs=1e-12)
    assert defined > 2500


def test_s_of_ten_thousand_pairs_is_the_papers_formula(pairs, found):
    # the products in a part of equal signs cancel to about 1e-16 / 1e-6 of a small variance
    np.testing.assert_allclose(found["s_measure"], [s_by_paper(*whole(pair)) for pair in pairs], rtol=0, atol=1e-8)


def test_e_of_a_thousand_pairs_is_the_papers_formula(pairs, found):
    wanted = [e_by_paper(*whole(pair)) for pair in pairs[::8]]
    assert len(wanted) > 1000
    np.testing.assert_allclose(found["e_measure"][::8], wanted, rtol=1e-9)


def test_weighted_f_of_hundreds_of_pairs_is_the_papers_formula(pairs, found):
    wanted = [weighted_f_by_paper(*whole(pair)) for pair in pairs[::8]]
    unique = [(value, want) for value, want in zip(found["weighted_f"][::8], wanted, strict=True) if want is not None]
    assert len(unique) > 500 and sum(0 < want < 1 for _, want in unique) > 200
    np.testing.assert_allclose(*zip(*unique, strict=True), rtol=1e-9, atol=1e-9)


def test_the_s_measure_of_an_image_is_the_collected_one(pairs, found):
    alone = [s_measure(pair.probability, pair.truth == 1, pair.valid) for pair in pairs]
    assert np.array_equal(alone, found["s_measure"])
    p, g = whole(pairs[0])
    assert s_measure(p, g) == s_measure(p, g, np.ones_like(g))
    assert math.isnan(s_measure(p, g, np.zeros_like(g)))


def test_every_measure_lies_between_0_and_1_but_e_by_its_divisor(pairs, found):
    for name in NAMES:
        top = np.array([pair.truth.size / max(pair.truth.size - 1, 1) for pair in pairs]) if name == "e_measure" else 1
        assert (found[name] >= 0).all() and (found[name] <= top + 1e-12).all()
