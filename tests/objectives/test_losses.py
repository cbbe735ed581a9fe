import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss

from convlora.errors import SettingsError
from convlora.objectives.losses import LOSSES, check_loss, get_loss
from tests.objectives.pairs import IGNORED, random_pairs

BINARY = ("structure", "structure-weighted", "balanced-bce")
BOUNDED = ("tversky", "focal-tversky")  # at most 1, whatever the logits
CASES = [*((name, 1) for name in LOSSES), *((name, 4) for name in LOSSES if name not in BINARY)]
every_loss = pytest.mark.parametrize(("name", "masks"), CASES, ids=[f"{name}-{masks}" for name, masks in CASES])

# float32 sums over 1665 pixels with weights up to 6, rounded to 2**-24 each: about 1e-5
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def batch(masks=1, images=4, size=(37, 45), seed=0):
    """Logits, and labels in blobs so that there are borders and inner parts."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, max(masks, 2), (images, 1, 5, 6), generator=generator).float()
    labels = F.interpolate(coarse, size=size, mode="nearest").long()[:, 0]
    return torch.randn(images, masks, *size, generator=generator) * 3, labels


def with_ignored(labels, share=0.3, seed=1):
    hidden = torch.rand(labels.shape, generator=torch.Generator().manual_seed(seed)) < share
    return torch.where(hidden, IGNORED, labels), hidden


def certain(labels, masks, size):
    """Logits of ±size that say exactly the labels."""
    truth = F.one_hot(labels, masks).movedim(-1, 1) if masks > 1 else labels[:, None]
    return size * (2.0 * truth - 1)


def value_and_gradient(loss, logits, labels):
    logits = logits.detach().requires_grad_()
    value = loss(logits, labels, IGNORED)
    value.backward()
    return value.detach(), logits.grad


def pranet(logits, labels, *, released):
    """PraNet's structure_loss in float64; `released`: with `reduce="none"`, which torch takes for "yes, the mean"."""
    pred, mask = logits.double(), labels[:, None].double()
    weit = 1 + 5 * torch.abs(F.avg_pool2d(mask, kernel_size=31, stride=1, padding=15) - mask)
    wbce = F.binary_cross_entropy_with_logits(pred, mask, reduction="mean" if released else "none")
    wbce = (weit * wbce).sum(dim=(2, 3)) / weit.sum(dim=(2, 3))
    pred = torch.sigmoid(pred)
    inter = ((pred * mask) * weit).sum(dim=(2, 3))
    union = ((pred + mask) * weit).sum(dim=(2, 3))
    wiou = 1 - (inter + 1) / (union - inter + 1)
    return (wbce + wiou).mean()


def structure_by_hand(logits, labels, *, weighted):
    """One image after the other in numpy, float64, ignored pixels cut out."""
    losses = []
    for x, truth in zip(logits[:, 0].double().numpy(), labels.numpy(), strict=True):
        valid, target = truth != IGNORED, (truth == 1).astype(float)
        if not valid.any():
            losses.append(0.0)
            continue
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(target, 15), (31, 31))
        weight = (1 + 5 * np.abs(windows.mean((2, 3)) - target))[valid]
        x, target = x[valid], target[valid]
        cross_entropy = np.logaddexp(0, np.where(target == 1, -x, x))
        p = 1 / (1 + np.exp(-x))
        inter, total = (p * target * weight).sum(), ((p + target) * weight).sum()
        iou = (inter + 1) / (total - inter + 1)
        losses.append(np.average(cross_entropy, weights=weight if weighted else None) + 1 - iou)
    return np.mean(losses)


def balanced_by_hand(logits, labels):
    losses = []
    for x, truth in zip(logits[:, 0].double().numpy(), labels.numpy(), strict=True):
        sides = [np.logaddexp(0, x[truth == 0]), np.logaddexp(0, -x[truth == 1])]
        losses.append(np.mean([side.mean() for side in sides if side.size]))
    return np.mean(losses)


def monai_dice_ce(logits, labels):
    if logits.shape[1] == 1:
        return DiceCELoss(sigmoid=True)(logits.double(), labels[:, None].double())
    return DiceCELoss(softmax=True, to_onehot_y=True)(logits.double(), labels[:, None])


def check_equal(loss, oracle, logits, labels):
    value, gradient = value_and_gradient(loss, logits, labels)
    want, want_gradient = value_and_gradient(lambda x, y, _: oracle(x, y), logits, labels)
    torch.testing.assert_close(value.double(), want, **CLOSE)
    # a mean over 6660 pixels: gradients are near 1e-4, and a difference of two terms
    torch.testing.assert_close(gradient, want_gradient, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(("name", "released"), [("structure", True), ("structure-weighted", False)])
def test_structure_losses_equal_pranets_formulas_in_value_and_gradient(name, released):
    """The released code averages the cross-entropy over the batch, ours over each image: the mean is the same."""
    check_equal(LOSSES[name], lambda x, y: pranet(x, y, released=released), *batch())


@pytest.mark.parametrize(("name", "weighted"), [("structure", False), ("structure-weighted", True)])
def test_structure_losses_with_ignored_pixels_equal_a_count_by_hand(name, weighted):
    logits, labels = batch()
    labels, _ = with_ignored(labels)
    labels[2, 5:] = labels[3] = IGNORED
    want = structure_by_hand(logits, labels, weighted=weighted)
    assert LOSSES[name](logits, labels, IGNORED).item() == pytest.approx(want, rel=1e-5)


def test_images_weigh_alike_however_many_pixels_are_ignored():
    """Here ours parts from the released averaging over the batch, in which pixels weigh alike."""
    logits, labels = batch(images=2)
    logits[1] *= 3
    labels[0, 5:] = IGNORED
    valid = labels != IGNORED
    cross_entropy = F.binary_cross_entropy_with_logits(logits[:, 0], (labels == 1).float(), reduction="none")
    alone = [LOSSES["structure"](logits[i : i + 1], labels[i : i + 1], IGNORED) for i in (0, 1)]
    value = LOSSES["structure"](logits, labels, IGNORED)
    torch.testing.assert_close(value, sum(alone) / 2)
    iou = sum(alone) / 2 - (cross_entropy[0][valid[0]].mean() + cross_entropy[1].mean()) / 2
    assert value < 0.8 * (iou + cross_entropy[valid].mean())


def test_only_the_weighted_structure_loss_weights_the_cross_entropy_at_borders():
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    labels[:, 16:48, 16:48] = 1
    logits = certain(labels, 1, 4.0)
    logits[:, :, 16, 16:48] *= -1  # a row of the border
    assert LOSSES["structure-weighted"](logits, labels, IGNORED) > 1.2 * LOSSES["structure"](logits, labels, IGNORED)


@pytest.mark.parametrize("masks", [1, 4])
@pytest.mark.parametrize("classes", [3, 4])
def test_dice_ce_equals_monai_in_value_and_gradient_with_or_without_an_absent_class(masks, classes):
    logits, labels = batch(masks)
    check_equal(LOSSES["dice-ce"], monai_dice_ce, logits, labels.clamp(max=classes - 1))


@pytest.mark.parametrize("masks", [1, 4])
def test_dice_ce_with_ignored_pixels_equals_monai_without_these_pixels(masks):
    logits, labels = batch(masks)
    labels, hidden = with_ignored(labels)
    rest = [(x[:, ~h][None, :, None], y[~h][None, None]) for x, y, h in zip(logits, labels, hidden, strict=True)]
    want = torch.stack([monai_dice_ce(x, y) for x, y in rest]).mean()
    torch.testing.assert_close(LOSSES["dice-ce"](logits, labels, IGNORED).double(), want, **CLOSE)


@pytest.mark.parametrize("ignored", [0.0, 0.5])
def test_balanced_bce_equals_a_count_by_hand(ignored):
    logits, labels = batch()
    labels[1], labels[2] = 0, 1  # background only, foreground only
    labels, _ = with_ignored(labels, ignored)
    want = balanced_by_hand(logits, labels)
    assert LOSSES["balanced-bce"](logits, labels, IGNORED).item() == pytest.approx(want, rel=1e-5)


def test_balanced_bce_equals_the_mean_over_both_sides_in_value_and_gradient():
    def both_sides(logits, labels):
        p = logits[:, 0].double().sigmoid()
        sides = [[-(1 - x[y == 0]).log().mean(), -x[y == 1].log().mean()] for x, y in zip(p, labels, strict=True)]
        return torch.stack([(negative + positive) / 2 for negative, positive in sides]).mean()

    check_equal(LOSSES["balanced-bce"], both_sides, *batch())


@pytest.mark.parametrize("name", ["structure", "structure-weighted", "balanced-bce"])
def test_losses_of_random_pairs_equal_a_count_by_hand(name):
    """Of any size from one pixel on, empty, full, and with any share of ignored pixels."""
    oracle = {
        "structure": lambda x, y: structure_by_hand(x, y, weighted=False),
        "structure-weighted": lambda x, y: structure_by_hand(x, y, weighted=True),
        "balanced-bce": balanced_by_hand,
    }[name]
    pairs = random_pairs(count=360)
    for pair in pairs:
        logits = torch.from_numpy(12 * pair.probability - 6)[None, None]
        labels = torch.from_numpy(pair.truth)[None]
        want = oracle(logits, labels) if pair.valid.any() else 0.0
        assert LOSSES[name](logits, labels, IGNORED).item() == pytest.approx(want, rel=1e-4, abs=1e-6)


def test_balanced_bce_does_not_depend_on_how_large_the_foreground_is():
    for rows in (1, 10, 31):
        labels = torch.zeros(1, 32, 32, dtype=torch.long)
        labels[:, :rows] = 1
        logits = torch.where(labels == 1, -1.0, -2.0)[:, None]
        want = (math.log1p(math.exp(1)) + math.log1p(math.exp(-2))) / 2
        assert LOSSES["balanced-bce"](logits, labels, IGNORED).item() == pytest.approx(want, rel=1e-5)


@every_loss
def test_the_gradient_is_the_slope(name, masks):
    logits, labels = batch(masks)
    labels, _ = with_ignored(labels)
    _, gradient = value_and_gradient(LOSSES[name], logits, labels)
    step = 0.1 * gradient / gradient.abs().max()
    up, down = (LOSSES[name](logits + sign * step, labels, IGNORED).item() for sign in (1, -1))
    # the slope is above 1e-2, the values near 2 are rounded to 2**-23: 3e-5; the cubic term is about step² / 6 = 2e-3
    assert up - down == pytest.approx(2 * (gradient * step).sum().item(), rel=3e-3)


@every_loss
def test_ignored_pixels_change_neither_value_nor_gradient_and_get_none(name, masks):
    logits, labels = batch(masks)
    labels, hidden = with_ignored(labels)
    value, gradient = value_and_gradient(LOSSES[name], logits, labels)
    hidden = hidden[:, None].expand_as(logits)
    other, other_gradient = value_and_gradient(LOSSES[name], torch.where(hidden, 1e4, logits), labels)
    assert torch.equal(value, other)
    assert torch.equal(gradient, other_gradient)
    assert gradient[hidden].abs().max() == 0
    assert gradient[~hidden].abs().min() > 0


@every_loss
@pytest.mark.parametrize("ignore_index", [-100, 254])
def test_the_ignored_label_may_be_any(name, masks, ignore_index):
    logits, labels = batch(masks)
    labels, hidden = with_ignored(labels)
    other = torch.where(hidden, ignore_index, labels)
    assert torch.equal(LOSSES[name](logits, labels, IGNORED), LOSSES[name](logits, other, ignore_index))


@every_loss
def test_an_image_of_ignored_pixels_only_adds_zero_and_gets_no_gradient(name, masks):
    logits, labels = batch(masks, images=2)
    alone = LOSSES[name](logits[:1], labels[:1], IGNORED)
    labels[1] = IGNORED
    value, gradient = value_and_gradient(LOSSES[name], logits, labels)
    torch.testing.assert_close(value, alone / 2)
    assert gradient[0].isfinite().all()
    assert gradient[1].abs().max() == 0
    assert LOSSES[name](logits[1:], labels[1:], IGNORED) == 0


@every_loss
def test_an_image_without_foreground_pushes_every_pixel_to_background(name, masks):
    logits, labels = batch(masks)
    value, gradient = value_and_gradient(LOSSES[name], logits, torch.zeros_like(labels))
    assert value.isfinite()
    assert (gradient > 0).all() if masks == 1 else (gradient[:, 0] < 0).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("right", [True, False])
def test_extreme_logits_give_finite_values_and_gradients(name, masks, dtype, right):
    _, labels = batch(masks)
    logits = certain(labels, masks, 1e4 if right else -1e4).to(dtype)
    value, gradient = value_and_gradient(LOSSES[name], logits, labels)
    assert value.isfinite()
    assert gradient.isfinite().all()
    if right:
        assert value < 1e-3
    else:
        assert value > (0.9 if name in BOUNDED else 1000)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(name, masks, dtype):
    logits, labels = batch(masks)
    logits = logits.to(dtype)
    assert torch.equal(LOSSES[name](logits, labels, IGNORED), LOSSES[name](logits.float(), labels, IGNORED))


@every_loss
def test_the_mean_of_two_half_batches_is_the_full_batch(name, masks):
    logits, labels = batch(masks)
    labels[:2] = with_ignored(labels[:2], share=0.8)[0]
    labels[3] = IGNORED
    halves = [value_and_gradient(LOSSES[name], logits[part], labels[part]) for part in (slice(2), slice(2, 4))]
    value, gradient = value_and_gradient(LOSSES[name], logits, labels)
    torch.testing.assert_close((halves[0][0] + halves[1][0]) / 2, value)
    torch.testing.assert_close(torch.cat([halves[0][1], halves[1][1]]) / 2, gradient)


@every_loss
def test_a_perfect_prediction_is_near_zero_and_every_wrong_pixel_raises_it(name, masks):
    _, labels = batch(masks, images=1, size=(20, 24))
    logits = certain(labels, masks, 15.0)
    best = LOSSES[name](logits, labels, IGNORED)
    assert best < 1e-4
    for y, x in torch.randint(20, (20, 2), generator=torch.Generator().manual_seed(0)).tolist():
        worse = logits.clone()
        worse[:, :, y, x] *= -1
        assert LOSSES[name](worse, labels, IGNORED) > best + 1e-3


@every_loss
def test_labels_may_be_bytes(name, masks):
    logits, labels = batch(masks)
    labels, _ = with_ignored(labels)
    assert torch.equal(LOSSES[name](logits, labels, IGNORED), LOSSES[name](logits, labels.to(torch.uint8), IGNORED))


def test_an_unknown_loss_is_refused_with_the_nearest_name():
    with pytest.raises(SettingsError, match=r"'structur' must be one of .*Did you mean 'structure'"):
        get_loss("structur")
    with pytest.raises(
        SettingsError, match=r"one of structure, structure-weighted, balanced-bce, dice-ce, focal, .*y\.$"
    ):
        get_loss("xyz")


@pytest.mark.parametrize("name", BINARY)
def test_a_binary_loss_refuses_several_masks(name):
    check_loss(name, 1)
    with pytest.raises(SettingsError, match=r"there are 4.*Use one of dice-ce, focal"):
        check_loss(name, 4)
    with pytest.raises(ValueError, match="takes one mask, got 4"):
        LOSSES[name](*batch(4), IGNORED)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - set(BINARY)))
def test_the_other_losses_take_one_mask_or_several(name):
    check_loss(name, 1)
    check_loss(name, 4)
