import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.losses import FocalLoss, TverskyLoss

from convlora.errors import SettingsError
from convlora.objectives.losses import check_loss, dice_ce_loss, get_loss
from tests.objectives.test_losses import CLOSE, IGNORED, batch, with_ignored


def probabilities(logits):
    """(b, K, H, W) float64 in numpy, two classes of one mask included."""
    x = logits.double().numpy()
    if x.shape[1] == 1:
        p = 1 / (1 + np.exp(-x))
        return np.concatenate([1 - p, p], 1)
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def focal_by_hand(logits, labels, weights=None):
    losses = []
    for p, truth in zip(probabilities(logits), labels.numpy(), strict=True):
        valid = truth != IGNORED
        of_truth = np.take_along_axis(p, np.where(valid, truth, 0)[None], 0)[0][valid]
        weight = np.ones(valid.sum()) if weights is None else np.array(weights)[truth[valid]]
        losses.append(np.average(-((1 - of_truth) ** 2) * np.log(of_truth), weights=weight))
    return np.mean(losses)


def tversky_by_hand(logits, labels, power=1.0):
    losses = []
    for p, truth in zip(probabilities(logits), labels.numpy(), strict=True):
        valid = truth != IGNORED
        for c in range(logits.shape[1] == 1, len(p)):
            x, t = p[c][valid], truth[valid] == c
            hits, false, missed = x[t].sum(), x[~t].sum(), (1 - x[t]).sum()
            losses.append((1 - hits / (hits + 0.3 * false + 0.7 * missed)) ** power)
    return np.mean(losses)


@pytest.mark.parametrize("masks", [1, 4])
@pytest.mark.parametrize("ignored", [False, True])
def test_the_losses_are_those_of_the_papers(masks, ignored):
    logits, labels = batch(masks)
    labels = with_ignored(labels)[0] if ignored else labels
    weights = [0.5, 3.0] if masks == 1 else [0.2, 1.0, 4.0, 0.0]
    got = {name: get_loss(name)(logits, labels, IGNORED).item() for name in ("focal", "tversky", "focal-tversky")}
    assert got["focal"] == pytest.approx(focal_by_hand(logits, labels), rel=1e-5)
    assert got["tversky"] == pytest.approx(tversky_by_hand(logits, labels), rel=1e-5)
    assert got["focal-tversky"] == pytest.approx(tversky_by_hand(logits, labels, 0.75), rel=1e-5)
    weighted = get_loss("focal", class_weights=weights)(logits, labels, IGNORED)
    assert weighted.item() == pytest.approx(focal_by_hand(logits, labels, weights), rel=1e-5)


def test_monai_agrees_where_it_computes_the_same():
    for masks in (1, 4):
        logits, labels = batch(masks)
        truth = labels[:, None]
        one_hot = masks > 1
        monai = TverskyLoss(softmax=one_hot, sigmoid=not one_hot, to_onehot_y=one_hot, alpha=0.3, beta=0.7)
        torch.testing.assert_close(get_loss("tversky")(logits, labels, IGNORED), monai(logits, truth), **CLOSE)
        focal = FocalLoss(gamma=2, use_softmax=one_hot, to_onehot_y=one_hot)(logits, truth)
        # MONAI's mean is over the classes, too, of which all but the true one are 0
        torch.testing.assert_close(get_loss("focal")(logits, labels, IGNORED), focal * masks, **CLOSE)


@pytest.mark.parametrize("masks", [1, 4])
def test_weights_make_the_cross_entropy_of_dice_ce_a_weighted_mean(masks):
    logits, labels = batch(masks)
    labels = with_ignored(labels)[0]
    weights = [0.5, 3.0] if masks == 1 else [0.2, 1.0, 4.0, 2.0]
    weighted, plain = (dice_ce_loss(logits, labels, IGNORED, class_weights=w).item() for w in (weights, None))
    p = probabilities(logits)
    means = []
    for given_weights in (weights, np.ones(len(weights))):
        losses = []
        for one, truth in zip(p, labels.numpy(), strict=True):
            valid = truth != IGNORED
            of_truth = np.take_along_axis(one, np.where(valid, truth, 0)[None], 0)[0][valid]
            losses.append(np.average(-np.log(of_truth), weights=np.array(given_weights)[truth[valid]]))
        means.append(np.mean(losses))
    assert weighted - plain == pytest.approx(means[0] - means[1], rel=1e-4)
    scaled = dice_ce_loss(logits, labels, IGNORED, class_weights=[7 * w for w in weights])
    assert scaled.item() == pytest.approx(weighted, rel=1e-5)  # only the ratios matter
    equal = dice_ce_loss(logits, labels, IGNORED, class_weights=[1.0] * len(weights))
    assert equal.item() == pytest.approx(plain, rel=1e-6)


@given(st.floats(-30, 30))
@settings(max_examples=25, deadline=None)
def test_the_focal_loss_of_a_pixel_is_its_formula_even_where_it_nearly_vanishes(x):
    got = get_loss("focal")(torch.tensor([[[[x]]]], dtype=torch.float32), torch.tensor([[[1]]]), IGNORED).item()
    x = float(np.float32(x))
    log_p, log_q = -np.logaddexp(0, -x), -np.logaddexp(0, x)
    assert got == pytest.approx(-np.exp(2 * log_q) * log_p, rel=1e-4, abs=1e-30)


def test_what_is_missed_costs_more_than_what_is_too_much():
    truth = torch.zeros(1, 20, 20, dtype=torch.long)
    truth[:, 5:15, 5:15] = 1
    grown, shrunk = torch.full((1, 1, 20, 20), -9.0), torch.full((1, 1, 20, 20), -9.0)
    grown[:, :, 5:15, 5:16] = shrunk[:, :, 5:15, 5:14] = 9
    for name in ("tversky", "focal-tversky"):
        assert get_loss(name)(shrunk, truth, IGNORED) > get_loss(name)(grown, truth, IGNORED) > 0.02


@pytest.mark.parametrize(
    ("name", "masks", "weights", "message"),
    [
        ("structure", 1, [1.0, 2.0], "no place in loss='structure'; use one of dice-ce, focal"),
        ("tversky", 3, [1.0, 2.0, 1.0], "no place in loss='tversky'"),
        ("dice-ce", 1, [1.0], "must be 2 finite numbers"),
        ("dice-ce", 3, [1.0, 2.0], "must be 3 finite numbers"),
        ("focal", 3, [0.0, 0.0, 0.0], "not all of them 0"),
        ("focal", 3, [1.0, -1.0, 1.0], "none below 0"),
        ("focal", 3, [1.0, float("nan"), 1.0], "finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(name, masks, weights, message):
    with pytest.raises(SettingsError, match=message):
        check_loss(name, masks, class_weights=weights)
