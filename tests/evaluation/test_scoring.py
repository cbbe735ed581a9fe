import numpy as np
import pytest
from PIL import Image

from convlora.data.dataset import SegmentationDataset
from convlora.data.settings import ImageLimits
from convlora.evaluation.scoring import score
from convlora.inference.folder import predict_folder
from convlora.inference.predictor import Predictor
from convlora.inference.settings import PredictSettings
from convlora.sam import SamSegmentationImageProcessor


@pytest.fixture(scope="module")
def scored(finished):
    split = finished.read_split()
    dataset = SegmentationDataset(split.samples["test"] + split.samples["train"], split.labels, limits=ImageLimits())
    seen = []
    scores = score(
        Predictor.from_folder(finished.path), dataset, split.labels, progress=lambda *counts: seen.append(counts)
    )
    return scores, dataset, split, seen


def test_scores_equal_those_computed_from_the_written_masks(workspace, finished, scored, tmp_path):
    scores, _, split, _ = scored
    images = workspace / "data" / "images"
    predict_folder(PredictSettings(run=str(finished.path), images=str(images), output=str(tmp_path)))
    union = hits = predicted_or_true = right = pixels = 0
    per_image = {}
    for sample in split.samples["test"] + split.samples["train"]:
        got = np.asarray(Image.open(tmp_path / f"{sample.name}.png")) > 0
        want = np.asarray(Image.open(sample.mask)) > 0
        union, hits = union + (got | want).sum(), hits + (got & want).sum()
        predicted_or_true += got.sum() + want.sum()
        right, pixels = right + (got == want).sum(), pixels + want.size
        per_image[sample.name] = (got & want).sum() / (got | want).sum()
    assert 0 < hits < union
    assert scores.summary["iou"] == pytest.approx(hits / union)
    assert scores.summary["dice"] == pytest.approx(2 * hits / predicted_or_true)
    assert scores.summary["pixel_accuracy"] == pytest.approx(right / pixels)
    assert scores.summary["iou_per_image"] == pytest.approx(np.mean(list(per_image.values())))
    assert {image.name: image.iou for image in scores.images} == pytest.approx(per_image)
    assert scores.classes["foreground"]["iou"] == pytest.approx(hits / union)


def test_mae_is_that_of_the_probabilities(finished, scored):
    scores, dataset, _, _ = scored
    predictor = Predictor.from_folder(finished.path)
    errors = [
        np.abs(predictor.probabilities(item["image"])[1] - (item["mask"] == 1)).mean()
        for item in (dataset[i] for i in range(len(dataset)))
    ]
    assert scores.summary["mae"] == pytest.approx(np.mean(errors), abs=1 / 255)  # the field rounds to 8 bits


def test_every_image_is_counted_once_and_reported(scored):
    scores, dataset, _, seen = scored
    assert [image.name for image in scores.images] == [dataset[i]["name"] for i in range(len(dataset))]
    assert seen == [(i + 1, len(dataset)) for i in range(len(dataset))]


def test_intervals_hold_their_score(scored):
    scores, *_ = scored
    for name in ("iou", "dice"):
        low, high = scores.intervals[name]
        assert 0 <= low <= scores.summary[name] <= high <= 1 and low < high


def test_the_batch_size_changes_no_score(finished, scored):
    scores, dataset, split, _ = scored
    other = score(Predictor.from_folder(finished.path), dataset, split.labels, batch_size=3)
    assert other.summary == pytest.approx(scores.summary, abs=2e-3)  # a logit near 0 may flip with the sums' order


class Fixed:
    def __init__(self, answers):
        self.answers = list(answers)
        self.processor = SamSegmentationImageProcessor()

    def logits(self, images):
        return [self.answers.pop(0) for _ in images]


def dataset_of(tmp_path, *masks):
    from convlora.data.labels.format import LabelFormat
    from convlora.data.readers.pairing import Sample

    samples = []
    for i, mask in enumerate(masks):
        Image.fromarray(np.zeros((*mask.shape, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / f"m{i}.png")
        samples.append(Sample(str(i), tmp_path / f"{i}.png", tmp_path / f"m{i}.png", "test"))
    labels = LabelFormat(("background", "leaf"), "ids", 255)
    return SegmentationDataset(samples, labels, limits=ImageLimits()), labels


def test_ignored_pixels_count_nowhere(tmp_path):
    import torch

    mask = np.array([[0, 0, 1, 1], [255, 255, 255, 255]], dtype=np.uint8)
    right = torch.tensor([[[-9.0, -9, 9, 9], [9, 9, 9, 9]]])
    scores = score(Fixed([right]), *dataset_of(tmp_path, mask))
    assert scores.summary["iou"] == scores.summary["pixel_accuracy"] == 1.0


def test_an_image_without_a_valid_pixel_is_null_in_json_and_leaves_the_others_alone(tmp_path):
    import json

    import torch

    masks = np.full((4, 4), 255, dtype=np.uint8), np.tile(np.uint8([0, 1]), (4, 2))
    answers = torch.zeros(1, 4, 4), torch.from_numpy(masks[1].astype(np.float32))[None] - 0.5
    scores = score(Fixed(answers), *dataset_of(tmp_path, *masks))
    text = json.dumps(scores.as_json(), allow_nan=False)
    assert json.loads(text)["per_image"] == [
        {"name": "0", "iou": None, "dice": None},
        {"name": "1", "iou": 1.0, "dice": 1.0},
    ]
    assert scores.summary["iou"] == 1.0 and set(scores.as_json()["definitions"]) == set(scores.summary)
