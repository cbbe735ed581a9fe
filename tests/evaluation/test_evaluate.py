import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from convlora.errors import DataError, SettingsError, WeightsError
from convlora.evaluation.evaluate import evaluate
from convlora.evaluation.settings import EvaluateSettings
from convlora.training.folder import RunFolder


@pytest.fixture
def run(finished, tmp_path):
    """A copy that may be changed."""
    return RunFolder(shutil.copytree(finished.path, tmp_path / "run"))


def folders(workspace):
    data = workspace / "data"
    return {"images": str(data / "images"), "masks": str(data / "masks")}


def test_the_runs_own_test_images_are_scored_into_its_folder(run):
    seen = []
    evaluation = evaluate(EvaluateSettings(run=str(run.path)), lambda *counts: seen.append(counts))
    test = run.read_split().samples["test"]
    assert [image.name for image in evaluation.result.scores.images] == [sample.name for sample in test]
    assert evaluation.folder == run.path and seen[-1] == (2, 2)
    metrics = json.loads(run.metrics.read_text())
    assert metrics["images"] == 2 and metrics["name"] == "conv-lora"
    assert metrics["scores"]["iou"] == pytest.approx(evaluation.result.scores.summary["iou"])
    assert metrics["adapter_bytes"] == (run.adapter / "adapter_model.safetensors").stat().st_size
    assert run.report.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_number_of_trained_parameters_is_that_of_the_training(run):
    from convlora.training.build import build_model
    from convlora.training.methods import count_parameters
    from convlora.training.settings import from_dict

    settings = from_dict(run.settings(), source="run")
    trained, _ = count_parameters(build_model(settings, run.read_split())[0])
    assert evaluate(EvaluateSettings(run=str(run.path))).result.trainable == trained


def test_another_split_is_scored_without_touching_the_runs_metrics(run):
    evaluation = evaluate(EvaluateSettings(run=str(run.path), split="val"))
    assert len(evaluation.result.scores.images) == 2 and evaluation.folder is None
    assert not run.metrics.exists() and not run.report.exists()


def test_another_folder_is_scored_whole_and_written_where_asked(workspace, run, tmp_path):
    output = tmp_path / "new" / "scores"
    evaluation = evaluate(EvaluateSettings(run=str(run.path), output=str(output), **folders(workspace)))
    assert len(evaluation.result.scores.images) == 9
    assert sorted(path.name for path in output.iterdir()) == ["metrics.json", "report.html"]
    assert not run.metrics.exists()


def test_a_csv_file_with_splits_gives_the_split_that_is_asked_for(workspace, run, tmp_path):
    data = workspace / "data"
    with (tmp_path / "data.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "mask", "split"])
        for i in range(9):
            split = "train" if i < 4 else "val" if i < 6 else "test"
            writer.writerow([data / "images" / f"i{i}.png", data / "masks" / f"i{i}.png", split])
    settings = {"run": str(run.path), "images": str(tmp_path / "data.csv")}
    names = lambda **changes: [  # noqa: E731
        image.name for image in evaluate(EvaluateSettings(**settings, **changes)).result.scores.images
    ]
    assert names() == ["i6", "i7", "i8"]
    assert names(split="val") == ["i4", "i5"]
    text = (tmp_path / "data.csv").read_text().replace(",test", ",val")
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(DataError, match=r"has no images of split 'test'\. Choose another --split"):
        names()


def test_an_adapter_alone_scores_the_images_that_are_given(workspace, run, monkeypatch):
    whole = evaluate(EvaluateSettings(run=str(run.path), **folders(workspace)))
    alone = evaluate(EvaluateSettings(run=str(run.adapter), **folders(workspace)))
    assert alone.result.scores == whole.result.scores
    assert alone.result.name == "adapter" and alone.result.settings == {} and alone.result.log == []
    monkeypatch.chdir(run.adapter)
    assert evaluate(EvaluateSettings(run=".", **folders(workspace))).result.name == "adapter"


def test_an_adapter_alone_needs_images(run):
    with pytest.raises(SettingsError, match=r"adapter folder alone.*Give --images and --masks"):
        evaluate(EvaluateSettings(run=str(run.adapter)))


def test_masks_with_other_classes_are_refused(workspace, run, tmp_path):
    shutil.copytree(workspace / "data", tmp_path / "data")
    mask = tmp_path / "data" / "masks" / "i0.png"
    ids = np.array(Image.open(mask))
    ids[0, :3] = 7
    Image.fromarray(ids).save(mask)
    with pytest.raises(DataError, match=r"i0\.png.*7"):
        evaluate(EvaluateSettings(run=str(run.path), **folders(tmp_path)))
    assert not run.metrics.exists()


def test_a_run_without_test_images_says_what_to_give(run):
    split = json.loads(run.split.read_text())
    split["samples"]["test"] = []
    run.split.write_text(json.dumps(split))
    with pytest.raises(DataError, match=r"set no images aside as 'test'\. Give --images and --masks"):
        evaluate(EvaluateSettings(run=str(run.path)))


def test_a_folder_that_is_no_run_is_refused(tmp_path, workspace):
    with pytest.raises(WeightsError, match=r"holds no manifest\.json"):
        evaluate(EvaluateSettings(run=str(tmp_path), **folders(workspace)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "tset"}, "split='tset' must be one of train, val, test"),
        ({"masks": "m"}, "masks='m' is given, but not their images"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"device": "gpu"}, "device='gpu' must be auto"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        EvaluateSettings(run="r", **changes)
