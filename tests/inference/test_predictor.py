import shutil

import numpy as np
import pytest

from convlora.data.pixels.images import read_image
from convlora.errors import WeightsError
from convlora.inference.predictor import Predictor
from tests.sam.models import small_sam


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def predictor(finished):
    return Predictor.from_folder(finished.path)


def test_a_run_and_its_adapter_alone_give_the_same_answer(finished, predictor, tmp_path):
    moved = tmp_path / "moved to ü"
    shutil.copytree(finished.adapter, moved)
    picture = image(50, 40)
    want = predictor.logits([picture])[0]
    for folder in (finished.adapter, moved, str(moved)):
        assert Predictor.from_folder(folder).logits([picture])[0].equal(want)


def test_a_relative_folder_works(finished, predictor, monkeypatch):
    monkeypatch.chdir(finished.path)
    assert Predictor.from_folder(".").logits([image(9, 9)])[0].equal(predictor.logits([image(9, 9)])[0])


def test_the_answer_depends_on_the_image(finished, predictor):
    sample = finished.read_split().samples["train"][0]
    logits = predictor.logits([read_image(sample.image)])[0]
    assert float(logits.std()) > 0
    assert not logits.equal(predictor.logits([255 - read_image(sample.image)])[0])


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (1, 700), (700, 1), (2, 333), (65, 64)])
def test_every_answer_has_the_images_own_size(predictor, size):
    ids = predictor(image(*size))
    probabilities = predictor.probabilities(image(*size))
    assert ids.shape == size and ids.dtype == np.uint8 and set(np.unique(ids)) <= {0, 1}
    assert probabilities.shape == (2, *size) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=2**-23)  # 1 - p and p are rounded once each
    np.testing.assert_array_equal(ids, probabilities[1] > 0.5)


def test_the_classes_are_those_of_the_run(predictor):
    assert predictor.id2label == {0: "background", 1: "foreground"}
    assert not predictor.model.training


def test_an_unfinished_run_says_how_to_finish_it(tmp_path):
    run = tmp_path / "my run"
    run.mkdir()
    (run / "config.yaml").write_text("output: x\n")
    with pytest.raises(WeightsError, match=rf"is not finished. Continue it with `convlora resume '{run}'`"):
        Predictor.from_folder(run)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="is not a folder"):
        Predictor.from_folder(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="is not a folder"):
        Predictor.from_folder(tmp_path / "file")
    with pytest.raises(WeightsError, match=r"holds no manifest\.json.*Give a run folder, or its adapter/ folder"):
        Predictor.from_folder(tmp_path)


def test_another_base_model_is_refused(finished, tmp_path):
    small_sam(seed=1).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="another base model"):
        Predictor.from_folder(finished.path, model=str(tmp_path))
