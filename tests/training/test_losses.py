"""Every name of a loss, from the settings to the number that a model gives for the first batch, against its formula."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from convlora.data.augmentation.settings import AugmentationSettings
from convlora.data.dataset import SegmentationDataset
from convlora.data.findings.checking import check_data
from convlora.data.labels.format import LabelFormat
from convlora.errors import SettingsError
from convlora.training.build import build_model
from convlora.training.events import Started
from convlora.training.run import _balance_notes, train
from convlora.training.settings import validate
from convlora.training.split import Split
from tests.training.overlapping import CLASSES, write_overlapping
from tests.training.runs import quick_settings, write_data

WEIGHTS = [0.5, 1.0, 4.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("losses")
    write_data(folder / "data", classes=3, count=6)
    write_data(folder / "two" / "data", count=6)
    write_overlapping(folder / "overlapping", count=6)
    return folder


def pixel_mean(values, weights):
    return (values * weights).sum() / weights.sum()


def overlap(p, t, name):
    """The part of a loss that is about areas, of one class of one image."""
    tp, fp, fn = (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()
    if name in ("dice-ce", "dice-bce"):
        return 1 - (2 * tp + 1e-5) / (2 * tp + fp + fn + 1e-5)
    return (1 - (tp + 1e-5) / (tp + 0.3 * fp + 0.7 * fn + 1e-5)) ** (0.75 if name == "focal-tversky" else 1)


def one_task(name, p, truth, classes, weights):
    """The loss of an image whose classes exclude each other: probabilities (K, n), truth (n,)."""
    of_truth = p[truth, np.arange(len(truth))]
    weight = np.asarray(weights)[truth]
    if name == "focal":
        return pixel_mean(-((1 - of_truth) ** 2) * np.log(of_truth), weight)
    areas = np.mean([overlap(p[c], truth == c, name) for c in classes])
    return areas + (pixel_mean(-np.log(of_truth), weight) if name in ("dice-ce", "dice-bce") else 0)


def expected(name, logits, labels, ignored, *, multilabel=False, weights=None):
    """The mean over the images; and over the classes, if each is a task of its own."""
    losses = []
    for x, truth in zip(logits, labels, strict=True):
        x, truth = x[:, truth != ignored], truth[truth != ignored]
        if multilabel:
            p = 1 / (1 + np.exp(-x))
            of_classes = [
                one_task(name, np.stack([1 - p[c], p[c]]), truth >> c & 1, [1], [1, 1]) for c in range(len(p))
            ]
            losses.append(np.average(of_classes, weights=weights and weights[1:]))
        elif len(x) == 1:
            p = 1 / (1 + np.exp(-x[0]))
            losses.append(one_task(name, np.stack([1 - p, p]), truth, [1], weights or [1, 1]))
        else:
            p = np.exp(x - x.max(0)) / np.exp(x - x.max(0)).sum(0)
            losses.append(one_task(name, p, truth, range(len(p)), weights or np.ones(len(p))))
    return np.mean(losses)


def first_batch(workspace, place, masks, **changes):
    """What a run's model says of its training images before the first step: its loss, and logits and labels."""
    images = str(place / "images")
    settings = quick_settings(workspace, images=images, masks=str(place / masks), method="decoder", **changes)
    validate(settings)
    checked = check_data(settings)
    weights = settings.class_weights and tuple(settings.class_weights)
    model, processor = build_model(settings, Split(checked.splits, checked.labels, class_weights=weights))
    dataset = SegmentationDataset(checked.splits["train"], checked.labels, limits=settings.limits)
    items = [dataset[i] for i in range(len(dataset))]
    batch = processor([item["image"] for item in items], [item["mask"] for item in items])
    with torch.no_grad():
        output = model.eval()(pixel_values=batch["pixel_values"], labels=batch["labels"])
    size = batch["labels"].shape[-2:]
    logits = F.interpolate(output.logits.double(), size=size, mode="bilinear", align_corners=False)
    return output.loss.item(), logits.numpy(), batch["labels"].numpy(), processor.ignore_index


@pytest.mark.parametrize("name", ["dice-ce", "focal", "tversky", "focal-tversky"])
@pytest.mark.parametrize(("part", "masks"), [("two/data", 1), ("data", 3)])
def test_losses_of_classes_that_exclude_each_other(workspace, folder, name, part, masks):
    loss, logits, *truth = first_batch(workspace, folder / part, "masks", loss=name)
    assert logits.shape[1] == masks
    assert loss == pytest.approx(expected(name, logits, *truth), rel=1e-4)


@pytest.mark.parametrize("name", ["dice-ce", "focal"])
def test_class_weights_of_classes_that_exclude_each_other(workspace, folder, name):
    loss, logits, *truth = first_batch(workspace, folder / "data", "masks", loss=name, class_weights=WEIGHTS)
    assert loss == pytest.approx(expected(name, logits, *truth, weights=WEIGHTS), rel=1e-4)
    assert loss != pytest.approx(expected(name, logits, *truth), rel=1e-3)


@pytest.mark.parametrize("name", [None, "dice-bce", "focal", "tversky", "focal-tversky"])
@pytest.mark.parametrize("weights", [None, [9.0, 1.0, 2.0, 5.0]])
def test_losses_of_classes_that_overlap(workspace, folder, name, weights):
    changes = {"task": "multilabel", "classes": CLASSES, "loss": name, "class_weights": weights}
    loss, logits, *truth = first_batch(workspace, folder / "overlapping", "channels", **changes)
    assert logits.shape[1] == 3
    want = expected(name or "dice-bce", logits, *truth, multilabel=True, weights=weights)
    assert loss == pytest.approx(want, rel=1e-4)


def test_a_run_logs_the_weighted_loss_of_the_images_that_it_repeats(workspace, tmp_path):
    write_data(tmp_path / "data", count=4)
    rare = tmp_path / "data/masks/i3.png"
    mask = np.asarray(Image.open(rare)).copy()
    mask[-8:] = 2
    Image.fromarray(mask).save(rare)
    all_train = {"loss": "focal", "val_fraction": 0.0, "test_fraction": 0.0}
    settings = quick_settings(
        workspace,
        **all_train,
        images=str(tmp_path / "data/images"),
        masks=str(tmp_path / "data/masks"),
        output=str(tmp_path / "run"),
        method="decoder",
        class_weights="balanced",
        oversample="class",
        oversample_below=1.0,
        augmentation=AugmentationSettings(enabled=False),
        batch_size=8,
        max_steps=1,
    )
    notes = []
    run = train(settings, lambda event: notes.extend(event.data.notes if isinstance(event, Started) else ()))
    split = run.read_split()
    assert split.repeats == (1, 1, 1, 2)  # of four images one holds class 2: the root of 1 / (1/4)
    stored = [np.asarray(Image.open(sample.mask)).ravel() for sample in split.samples["train"]]
    pixels = np.bincount(np.concatenate(stored), minlength=3)
    np.testing.assert_allclose(split.class_weights, pixels.sum() / (3 * pixels))
    shown = ", ".join(f"{name} {w:.3g}" for name, w in zip(split.labels.classes, split.class_weights, strict=True))
    assert f"weights in the loss: {shown}" in notes
    assert "oversampling: an epoch shows 5 images instead of 4" in notes
    _, logits, labels, ignored = first_batch(
        workspace, tmp_path / "data", "masks", **all_train, class_weights=list(split.class_weights)
    )
    once = [
        expected("focal", logits[i : i + 1], labels[i : i + 1], ignored, weights=split.class_weights) for i in range(4)
    ]
    logged = next(entry["loss"] for entry in run.read_log() if "loss" in entry)
    assert logged == pytest.approx(np.mean([*once, once[3]]), rel=1e-4)


def test_oversampling_that_does_nothing_is_said(workspace, tmp_path):
    write_data(tmp_path / "data", count=4)
    places = {"images": str(tmp_path / "data/images"), "masks": str(tmp_path / "data/masks")}
    settings = quick_settings(workspace, **places, oversample="class")
    split = Split(check_data(settings).splits, LabelFormat(("background", "disc")), repeats=(1.0, 1.0))
    (note,) = _balance_notes(settings, split)
    assert note.startswith("oversampling changes nothing: at least 50 % of the training images hold each class")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "fokal"}, "^loss='fokal' must be one of structure.*set\\.$"),
        ({"loss": "fokal", "task": "multilabel"}, "^loss='fokal' must be one of structure.*set\\.$"),
        ({"loss": "dice-ce", "task": "multilabel"}, "is for task='exclusive'; multilabel takes dice-bce, focal"),
        ({"loss": "set", "task": "multilabel"}, "is for task='exclusive'"),
        ({"loss": "dice-bce"}, "is for task='multilabel'; exclusive takes structure"),
        ({"loss": "tversky", "class_weights": "balanced"}, "class_weights have no place in loss='tversky'"),
        ({"task": "multilabel", "head": "queries"}, "^head='queries' makes classes that exclude each other"),
    ],
)
def test_names_that_do_not_fit_are_refused_in_one_sentence(workspace, changes, message):
    with pytest.raises(SettingsError, match=message):
        validate(quick_settings(workspace, **changes))
