import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from convlora.objectives import set_loss as module
from convlora.objectives.set_loss import match, set_loss, values_at

IGNORED = 255
# float32 sums over 768 points, rounded to 2**-24 each, and weights that add up to 20: about 1e-5
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def batch(queries=4, classes=3, images=3, mask_size=(16, 16), size=(24, 32), seed=0):
    """Mask logits, class logits, and labels in blobs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, classes, (images, 1, 3, 4), generator=generator).float()
    labels = F.interpolate(coarse, size=size, mode="nearest").long()[:, 0]
    masks = torch.randn(images, queries, *mask_size, generator=generator) * 3
    return masks, torch.randn(images, queries, classes + 1, generator=generator), labels


def with_ignored(labels, share=0.3, seed=1):
    hidden = torch.rand(labels.shape, generator=torch.Generator().manual_seed(seed)) < share
    return torch.where(hidden, IGNORED, labels), hidden


def mask_terms(logit, target):
    """Binary cross-entropy and Dice loss of one mask, plainly."""
    p = 1 / (1 + np.exp(-logit))
    cross_entropy = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
    return cross_entropy, 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)


def by_hand(masks, classes, labels):
    """One image in numpy, float64; every assignment is tried."""
    full = F.interpolate(masks[None].double(), labels.shape, mode="bilinear", align_corners=False)[0].numpy()
    valid = (labels != IGNORED).numpy()
    logits, ids = full[:, valid], labels.numpy()[valid]
    probability = np.exp(classes.double().numpy())
    probability /= probability.sum(1, keepdims=True)
    present, count = sorted(set(ids.tolist())), len(masks)
    terms = {(q, c): mask_terms(logits[q], ids == c) for q in range(count) for c in present}
    cost = {(q, c): 5 * sum(terms[q, c]) - 2 * probability[q, c] for q, c in terms}
    size = min(count, len(present))
    assignments = (
        list(zip(some, chosen, strict=True))
        for some in itertools.permutations(range(count), size)
        for chosen in itertools.combinations(present, size)
    )
    best = min(assignments, key=lambda pairs: sum(cost[pair] for pair in pairs))
    wanted = dict(best)
    weights = [1.0 if q in wanted else 0.1 for q in range(count)]
    log_loss = [-np.log(probability[q, wanted.get(q, classes.shape[1] - 1)]) for q in range(count)]
    class_loss = np.average(log_loss, weights=weights)
    mask_loss, dice = np.mean([terms[pair] for pair in best], axis=0)
    return 10 * class_loss + 5 * mask_loss + 5 * dice


@pytest.mark.parametrize(("queries", "classes"), [(4, 3), (1, 2), (2, 4), (5, 2)])
def test_the_loss_is_that_of_the_best_of_all_assignments(queries, classes):
    masks, logits, labels = batch(queries, classes)
    labels, _ = with_ignored(labels)
    want = np.mean([by_hand(*image) for image in zip(masks, logits, labels, strict=True)])
    assert set_loss(masks, logits, labels).item() == pytest.approx(want, rel=2e-5)


def test_without_ignored_pixels_it_is_the_librarys_loss_with_its_weights_applied(monkeypatch):
    masks, logits, labels = batch(mask_size=(16, 32), size=(16, 32))  # powers of two: pixel centres are exact
    rows, columns = torch.meshgrid((torch.arange(16) + 0.5) / 16, (torch.arange(32) + 0.5) / 32, indexing="ij")
    centres = torch.stack([columns, rows], dim=-1).reshape(1, -1, 2)
    config = Mask2FormerConfig(num_labels=3, train_num_points=512, oversample_ratio=1.0, importance_sample_ratio=0.0)
    library = Mask2FormerLoss(config, {})
    monkeypatch.setattr(torch, "rand", lambda count, *rest, **options: centres.repeat(count, 1, 1))
    total = 0
    for mask, logit, label in zip(masks, logits, labels, strict=True):
        ids = label.unique()
        targets = [(label == ids[:, None, None]).float()], [ids]
        loss = library(mask[None], logit[None], *targets)
        total += 10 * loss["loss_cross_entropy"] + 5 * loss["loss_mask"] + 5 * loss["loss_dice"]
    torch.testing.assert_close(set_loss(masks, logits, labels), total / 3, **CLOSE)


def few_points(monkeypatch, sampled):
    if sampled:
        monkeypatch.setattr(module, "NUM_POINTS", 100)


def value_and_gradients(masks, logits, labels, seed=0):
    masks, logits = masks.clone().requires_grad_(), logits.clone().requires_grad_()
    torch.manual_seed(seed)
    value = set_loss(masks, logits, labels)
    value.backward()
    return value.detach(), masks.grad, logits.grad


def test_the_gradient_is_the_slope():
    masks, logits, labels = batch()
    labels, _ = with_ignored(labels)
    _, *gradients = value_and_gradients(masks, logits, labels)
    for moved, gradient in zip((masks, logits), gradients, strict=True):
        step = 0.02 * gradient / gradient.abs().max()
        ends = [[x + sign * step if x is moved else x for x in (masks, logits)] for sign in (1, -1)]
        up, down = (set_loss(*end, labels).item() for end in ends)
        # values near 30 are rounded to 2**-20 = 1e-6, and the slope is above 1e-2; the cubic term is step² / 6
        assert up - down == pytest.approx(2 * (gradient * step).sum().item(), rel=2e-3)
        assert up - down > 5e-3


@pytest.mark.parametrize("sampled", [False, True])
def test_what_is_predicted_under_ignored_pixels_changes_nothing(monkeypatch, sampled):
    few_points(monkeypatch, sampled)
    masks, logits, labels = batch(mask_size=(16, 32), size=(16, 32))
    labels, hidden = with_ignored(labels)
    other = torch.where(hidden[:, None], 50 * torch.randn(masks.shape), masks)
    before, after = value_and_gradients(masks, logits, labels), value_and_gradients(other, logits, labels)
    for one, two in zip(before, after, strict=True):
        assert torch.equal(one, two)
    assert before[1].masked_select(hidden[:, None]).abs().max() == 0
    assert before[1].masked_select(~hidden[:, None]).abs().max() > 0


def test_a_class_that_is_only_ignored_is_not_looked_for():
    masks, logits, labels = batch(images=1, classes=3)
    labels = torch.where(labels == 2, IGNORED, labels)
    valid = (labels[0] != IGNORED).flatten().nonzero()[:, 0]
    assert match(masks[0], logits[0], labels[0], valid)[1].sort().values.tolist() == [0, 1]


def test_the_loss_of_a_batch_is_the_mean_of_its_images():
    masks, logits, labels = batch()
    each = [set_loss(masks[i : i + 1], logits[i : i + 1], labels[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(set_loss(masks, logits, labels), torch.stack(each).mean())


def test_an_image_without_a_valid_pixel_contributes_0_and_has_a_gradient():
    masks, logits, labels = batch()
    labels[1] = IGNORED
    value, mask_gradient, class_gradient = value_and_gradients(masks, logits, labels)
    others = set_loss(masks[[0, 2]], logits[[0, 2]], labels[[0, 2]])
    torch.testing.assert_close(value, others * 2 / 3)
    assert mask_gradient[1].abs().max() == 0 and class_gradient[1].abs().max() == 0
    value, mask_gradient, class_gradient = value_and_gradients(masks, logits, torch.full_like(labels, IGNORED))
    assert value == 0 and mask_gradient is not None and class_gradient is not None


def test_perfect_masks_and_classes_in_any_order_cost_nothing_and_a_wrong_class_does():
    labels = batch(classes=3)[2]
    order = torch.tensor([2, 0, 1])
    masks = 40 * (2.0 * (labels[:, None] == order[:, None, None]) - 1)
    logits = 40 * F.one_hot(order, 4).float().expand(3, -1, -1)
    assert set_loss(masks, logits, labels) < 1e-4
    assert set_loss(masks, logits.roll(1, dims=1), labels) > 10


@pytest.mark.parametrize("size", [(24, 32), (16, 16), (50, 35), (9, 11)])
def test_values_at_pixels_are_those_of_the_resized_map(size):
    maps = torch.randn(3, 16, 16)
    full = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0].flatten(1)
    every = torch.arange(size[0] * size[1])
    # coordinates of magnitude 16 in float32: 16 * 2**-22 of a step of up to 6 between neighbours
    torch.testing.assert_close(values_at(maps, every[None], size), full, rtol=0, atol=3e-5)
    own = torch.stack([every[torch.randperm(len(every))[:20]] for _ in range(3)])
    torch.testing.assert_close(values_at(maps, own, size), full.gather(1, own), rtol=0, atol=3e-5)


def test_drawn_points_follow_torchs_generator(monkeypatch):
    few_points(monkeypatch, sampled=True)
    inputs = batch(images=1)
    same = [value_and_gradients(*inputs, seed=3) for _ in range(2)]
    assert all(torch.equal(one, two) for one, two in zip(*same, strict=True))
    assert not torch.equal(same[0][0], value_and_gradients(*inputs, seed=4)[0])


def test_drawn_points_count_and_most_lie_where_the_mask_is_undecided(monkeypatch):
    few_points(monkeypatch, sampled=True)
    masks, _, labels = batch(images=1, mask_size=(16, 32), size=(16, 32))
    labels, hidden = with_ignored(labels)
    valid = (~hidden[0]).flatten().nonzero()[:, 0]
    torch.manual_seed(0)
    points = module._border_points(masks[0], valid, (16, 32))
    assert points.shape == (4, 100) and not hidden[0].flatten()[points].any()
    undecided = values_at(masks[0], points, (16, 32)).abs()
    typical = masks[0].flatten(1)[:, valid].abs().median(dim=1, keepdim=True).values
    # three quarters are the nearest third of the candidates, and half of the others lie below the median: 7/8
    assert ((undecided < typical).float().mean(1) > 0.75).all()


def test_a_loss_of_drawn_points_is_near_that_of_all_of_them(monkeypatch):
    masks, logits, labels = batch(images=1, size=(64, 64), mask_size=(64, 64))
    masks[:, :3] += 4 * F.one_hot(labels, 3).movedim(-1, 1)  # else near ties would be matched otherwise
    exact = set_loss(masks, logits, labels)
    monkeypatch.setattr(module, "NUM_POINTS", 1000)
    monkeypatch.setattr(module, "IMPORTANCE", 0.0)
    drawn = torch.stack([set_loss(masks, logits, labels) for _ in range(20)])
    # 20 * 1000 points with a cross-entropy of deviation ~2, weight 5: 5 * 2 / sqrt(20000) = 0.07, taken three times
    assert (drawn.mean() - exact).abs() < 0.21 and drawn.std() > 0


def test_a_value_that_is_not_finite_reaches_the_loss():
    masks, logits, labels = batch()
    masks[0, 1] = float("nan")
    masks[1] = float("nan")
    assert not set_loss(masks, logits, labels).isfinite()


def test_it_computes_in_float32_under_autocast_and_in_low_precision():
    masks, logits, labels = batch()
    masks, logits = masks.bfloat16(), logits.bfloat16()
    want = set_loss(masks.float(), logits.float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        got = set_loss(masks, logits, labels)
    assert got.dtype == torch.float32 and torch.equal(got, want)
    assert set_loss(1e3 * masks.half(), 1e3 * logits.half(), labels).isfinite()


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_that_is_no_class_is_refused(label):
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, 0, 0] = label
    with pytest.raises(ValueError, match=f"labels hold the classes .*{label}.*give 0 to 2"):
        set_loss(torch.randn(1, 5, 8, 8), torch.randn(1, 5, 4), labels)
