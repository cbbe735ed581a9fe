"""The queries head through whole runs."""

import numpy as np
import pytest
from PIL import Image

from convlora import Predictor
from convlora.evaluation.evaluate import evaluate
from convlora.evaluation.settings import EvaluateSettings
from convlora.objectives import set_loss
from convlora.objectives.losses import LOSSES
from convlora.sam import configuration
from convlora.training import settings as training_settings
from convlora.training.events import Progress
from convlora.training.run import resume, train
from tests.training.runs import loss_curve, quick_settings, weights_hash, write_data


@pytest.fixture(scope="module")
def folder(workspace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("queries")
    write_data(folder / "data", classes=3)
    (folder / "sam").symlink_to(workspace / "sam")
    return folder


def settings(folder, output, **changes):
    return quick_settings(folder, output, classes=["background", "leaf", "stem"], head="queries", **changes)


def test_three_classes_train_score_and_predict(folder):
    run = train(settings(folder, "three", max_steps=30, evaluate_every=15, learning_rate=3e-3))
    losses = [entry["task_loss"] for entry in run.read_log() if "task_loss" in entry]
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    scores = evaluate(EvaluateSettings(run=str(run.path), device="cpu", precision="fp32")).result.scores
    assert set(scores.classes) == {"background", "leaf", "stem"}
    predictor = Predictor.from_folder(run.path, device="cpu")
    image = np.asarray(Image.open(folder / "data" / "images" / "i0.png"))
    probabilities = predictor.probabilities(image)
    assert probabilities.shape == (3, *image.shape[:2])
    np.testing.assert_allclose(probabilities.sum(0), 1, rtol=1e-5)
    np.testing.assert_array_equal(predictor(image), probabilities.argmax(0))


def test_resume_after_a_crash_draws_the_same_points(folder, monkeypatch):
    monkeypatch.setattr(set_loss, "NUM_POINTS", 500)  # of 4096 pixels: so that points are drawn
    whole, broken = (settings(folder, f"points_{kind}") for kind in ("whole", "broken"))

    def crash(event):
        if isinstance(event, Progress) and event.loss is not None and event.step == 5:
            raise KeyError

    want = train(whole)
    with pytest.raises(KeyError):
        train(broken, crash)
    got = resume(broken.output)
    assert weights_hash(got) == weights_hash(want)
    assert loss_curve(got) == loss_curve(want)


def test_a_binary_task_may_use_it_too(workspace):
    run = train(quick_settings(workspace, "binary_queries", head="queries", num_queries=4, method="decoder"))
    predictor = Predictor.from_folder(run.path, device="cpu")
    assert predictor.probabilities(np.zeros((30, 50, 3), dtype=np.uint8)).shape == (2, 30, 50)
    assert predictor.model.get_base_model().config.num_queries == 4


def test_settings_name_the_heads_and_losses_that_there_are():
    assert training_settings.HEADS == configuration.HEADS and training_settings.SET_LOSS == configuration.SET_LOSS
    assert tuple(LOSSES) == training_settings.LOSSES
