from types import SimpleNamespace

import numpy as np
import pytest

from convlora.data.dataset import SegmentationDataset
from convlora.data.settings import ImageLimits
from convlora.evaluation.scoring import score
from convlora.inference.predictor import Predictor
from convlora.training import validation
from convlora.training.validation import validation_scores

OTHER_BATCHES = {"rel": 1e-6}  # float32 kernels round differently for batches of other sizes


@pytest.fixture(scope="module")
def case(finished):
    """Predictor, images and labels."""
    split = finished.read_split()
    samples = [sample for part in split.samples.values() for sample in part]
    dataset = SegmentationDataset(samples, split.labels, limits=ImageLimits())
    return Predictor.from_folder(finished.path, device="cpu", precision="fp32"), dataset, split.labels


def scores_of(case, dataset=None, **options):
    predictor, images, labels = case
    return validation_scores(predictor.model, predictor.processor, dataset or images, labels, batch_size=4, **options)


def test_scores_are_those_of_the_evaluation(case):
    found = scores_of(case, with_s_measure=True)
    want = score(*case, batch_size=4).summary
    assert found.keys() == want.keys() - {"mae", "e_measure", "weighted_f"}
    assert found == pytest.approx({name: want[name] for name in found}, rel=1e-12)


def test_the_s_measure_costs_nothing_unless_it_is_asked_for(case, monkeypatch):
    monkeypatch.setattr(validation, "s_measure", lambda *a: pytest.fail("computed"))
    monkeypatch.setattr(validation, "class_probabilities", lambda *a: pytest.fail("computed"))
    assert "s_measure" not in scores_of(case) and "ber" in scores_of(case)


def test_images_without_a_valid_pixel_count_nowhere(case):
    _, images, labels = case
    items = [images[i] for i in range(len(images))]
    nothing = {**items[0], "mask": np.full_like(items[0]["mask"], labels.ignore_index)}
    want = scores_of(case, items, with_s_measure=True)
    assert scores_of(case, [*items, nothing], with_s_measure=True) == pytest.approx(want, **OTHER_BATCHES)
    assert np.isnan(scores_of(case, [nothing], with_s_measure=True)["s_measure"])


def test_processes_share_the_images_and_the_score_is_over_all(case, monkeypatch):
    want = scores_of(case, with_s_measure=True)
    lists = {}
    for rank in range(2):
        process = SimpleNamespace(is_initialized=lambda: True, get_rank=lambda r=rank: r, get_world_size=lambda: 2)
        monkeypatch.setattr(validation, "distributed", process)
        monkeypatch.setattr(
            validation, "gather_object", lambda mine, r=rank: lists.setdefault(r, []).append(mine) or mine
        )
        scores_of(case, with_s_measure=True)
    gathered = iter([first + second for first, second in zip(lists[0], lists[1], strict=True)])
    assert [len(part) for part in lists[0]] == [5, 5] and [len(part) for part in lists[1]] == [4, 4]
    monkeypatch.setattr(validation, "gather_object", lambda mine: next(gathered))
    assert scores_of(case, with_s_measure=True) == pytest.approx(want, **OTHER_BATCHES)
