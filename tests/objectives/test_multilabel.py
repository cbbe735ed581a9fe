import numpy as np
import pytest
import torch

from convlora.data.labels.bits import IGNORED
from convlora.errors import SettingsError
from convlora.objectives.losses import MULTILABEL_LOSSES, check_loss, default_loss, get_loss
from convlora.objectives.metrics import MULTILABEL, confusion_matrix, foreground, per_class, summarize

SEED = np.random.default_rng(0)


def fields_and_channels(count, size=(3, 11, 13), ignored=0.2):
    channels = SEED.random((count, *size)) < 0.4
    fields = sum(channel.astype(np.int64) << number for number, channel in enumerate(channels))
    hidden = SEED.random(size) < ignored
    return np.where(hidden, IGNORED, fields), channels, hidden


def dice_bce_by_hand(logits, channels, hidden, weights=None):
    losses = []
    for x_of_class, truth_of_class in zip(logits.double().numpy().swapaxes(0, 1), channels, strict=True):
        of_images = []
        for x, truth, out in zip(x_of_class, truth_of_class, hidden, strict=True):
            x, t = x[~out], truth[~out]
            p = 1 / (1 + np.exp(-x))
            cross_entropy = np.logaddexp(0, np.where(t, -x, x)).mean()
            of_images.append(cross_entropy + 1 - (2 * p[t].sum() + 1e-5) / (p.sum() + t.sum() + 1e-5))
        losses.append(np.mean(of_images))
    return np.average(losses, weights=weights)


@pytest.mark.parametrize("count", [2, 5, 30])
def test_dice_bce_is_the_mean_over_the_classes_by_hand(count):
    fields, channels, hidden = fields_and_channels(count)
    logits = torch.randn(3, count, 11, 13, generator=torch.Generator().manual_seed(1)) * 3
    labels = torch.from_numpy(fields)
    got = get_loss("dice-bce", multilabel=True)(logits, labels, IGNORED)
    assert got.item() == pytest.approx(dice_bce_by_hand(logits, channels, hidden), rel=1e-5)
    weights = SEED.random(count) + 0.1
    weighted = get_loss("dice-bce", multilabel=True, class_weights=[9.0, *weights])(logits, labels, IGNORED)
    assert weighted.item() == pytest.approx(dice_bce_by_hand(logits, channels, hidden, weights), rel=1e-5)


@pytest.mark.parametrize("name", MULTILABEL_LOSSES)
def test_each_class_is_learned_by_itself_and_ignored_pixels_by_none(name):
    fields, _, hidden = fields_and_channels(3)
    labels = torch.from_numpy(fields)
    logits = torch.randn(3, 3, 11, 13, generator=torch.Generator().manual_seed(2)).requires_grad_()
    get_loss(name, multilabel=True)(logits, labels, IGNORED).backward()
    before = logits.grad.clone()
    assert (before.abs().amax(1)[torch.from_numpy(hidden)] == 0).all()
    assert (before.abs().amin(1)[torch.from_numpy(~hidden)] > 0).any()
    other = torch.where(labels == IGNORED, IGNORED, labels ^ 2)  # class 2 the other way round
    logits.grad = None
    get_loss(name, multilabel=True)(logits, other, IGNORED).backward()
    torch.testing.assert_close(logits.grad[:, [0, 2]], before[:, [0, 2]])
    assert not torch.allclose(logits.grad[:, 1], before[:, 1])


@pytest.mark.parametrize("name", MULTILABEL_LOSSES)
def test_a_right_answer_costs_nothing_and_an_image_without_valid_pixels_adds_nothing(name):
    fields, channels, _ = fields_and_channels(4, ignored=0)
    right = torch.from_numpy(channels.swapaxes(0, 1) * 60.0 - 30)
    loss = get_loss(name, multilabel=True)
    assert loss(right, torch.from_numpy(fields), IGNORED) < 1e-3
    labels = torch.from_numpy(fields)
    labels[1:] = IGNORED
    torch.testing.assert_close(loss(-right, labels, IGNORED), loss(-right[:1], labels[:1], IGNORED) / 3)


def test_losses_of_one_task_are_refused_for_the_other():
    assert (
        default_loss(3, multilabel=True) == "dice-bce" and default_loss(3) == "dice-ce" and default_loss(2) != "dice-ce"
    )
    for name in ("structure", "dice-ce", "set"):
        with pytest.raises(
            SettingsError, match="one of dice-bce, focal, tversky, focal-tversky where classes may overlap"
        ):
            check_loss(name, 3, multilabel=True)
    with pytest.raises(SettingsError, match="'dice-bce' must be one of structure"):
        check_loss("dice-bce", 3)
    check_loss("tversky", 2, multilabel=True, class_weights=[0.0, 1.0, 2.0])
    with pytest.raises(SettingsError, match="must be 3 finite numbers"):
        check_loss("dice-bce", 2, multilabel=True, class_weights=[1.0, 2.0])
    with pytest.raises(SettingsError, match="not all of them 0"):
        check_loss("dice-bce", 2, multilabel=True, class_weights=[1.0, 0.0, 0.0])


def test_scores_are_those_of_each_class_by_itself():
    truth, channels, hidden = fields_and_channels(4)
    said, answers, _ = fields_and_channels(4, ignored=0)
    matrices = [confusion_matrix(p, t, 5, IGNORED, multilabel=True) for p, t in zip(said, truth, strict=True)]
    iou, dice = per_class(np.sum(matrices, axis=0))
    for c in range(4):
        t, p = channels[c][~hidden], answers[c][~hidden]
        assert iou[c + 1] == pytest.approx((t & p).sum() / (t | p).sum())
        assert dice[c + 1] == pytest.approx(2 * (t & p).sum() / (t.sum() + p.sum()))
    scores = summarize(matrices, multilabel=True)
    assert tuple(scores) == MULTILABEL
    assert scores["iou"] == pytest.approx(iou[1:].mean()) and scores["dice"] == pytest.approx(dice[1:].mean())
    assert scores["iou_per_image"] == pytest.approx(np.mean([foreground(matrix)[0] for matrix in matrices]))


def test_with_one_class_the_matrix_is_the_usual_one():
    rng = np.random.default_rng(3)
    truth, said = rng.integers(0, 2, (2, 9, 9))
    np.testing.assert_array_equal(
        confusion_matrix(said, truth, 2, IGNORED, multilabel=True), confusion_matrix(said, truth, 2, IGNORED)
    )
    with pytest.raises(ValueError, match=r"prediction holds classes outside 1…2"):
        confusion_matrix(said + 3, truth, 3, IGNORED, multilabel=True)
