"""A map and colours of the classes, from the settings through the run to what it writes."""

import json
import re

import numpy as np
import pytest
import yaml
from PIL import Image

from convlora import Predictor
from convlora.errors import SettingsError
from convlora.evaluation.evaluate import evaluate
from convlora.evaluation.settings import EvaluateSettings
from convlora.inference.folder import predict_folder
from convlora.inference.settings import PredictSettings
from convlora.training.run import resume, train
from tests.cli.commands import assert_one_line, convlora
from tests.training.runs import Crash, crash_after, quick_settings, write_data

OUTER, RING = (1, 2, 3), (255, 255, 255)


def pixels(path):
    return np.asarray(Image.open(path))


def write_four_classes(folder):
    """Three classes of discs, of which the third may lie outside, and rows of a fourth and a fifth."""
    write_data(folder / "data", classes=4)
    for path in (folder / "data/masks").iterdir():
        mask = pixels(path).copy()
        mask[:4], mask[-6:] = 4, 3
        Image.fromarray(mask).save(path)


def settings_of(workspace, folder, **changes):
    """Four classes in the masks, of which two are merged, one is ignored, and both that are left have a colour."""
    values = {
        "images": str(folder / "data" / "images"),
        "masks": str(folder / "data" / "masks"),
        "output": str(folder / "run"),
        "classes": ["background", "inner", "middle", "ring", "outer"],
        "class_map": {"inner": "core", "2": "core", "outer": "ignore"},
        "class_colours": {"core": "#010203", "ring": "#ffffff"},
        "method": "decoder",
        "epochs": 12,
        "learning_rate": 3e-3,
    }
    return quick_settings(workspace, **{**values, **changes})


@pytest.fixture(scope="module")
def place(workspace, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mapped")
    write_four_classes(folder)
    train(settings_of(workspace, folder))
    places = {"run": str(folder / "run"), "images": str(folder / "data/images"), "output": str(folder / "masks")}
    predict_folder(PredictSettings(**places, overlays=True, palette=True, precision="fp32"))
    return folder


def test_the_run_keeps_the_map_and_what_it_came_to(place):
    config = yaml.safe_load((place / "run/config.yaml").read_text())
    assert config["class_map"] == {"inner": "core", "2": "core", "outer": "ignore"}
    assert config["class_colours"] == {"core": "#010203", "ring": "#ffffff"}
    labels = json.loads((place / "run/split.json").read_text())["labels"]
    assert labels["classes"] == ["background", "core", "ring"]
    assert dict(labels["table"]) == {0: 0, 1: 1, 2: 1, 3: 2, 4: 255, 255: 255}
    predictor = Predictor.from_folder(place / "run")
    assert predictor.id2label == {0: "background", 1: "core", 2: "ring"}
    assert predictor.colours == {0: (0, 0, 0), 1: OUTER, 2: RING}


def test_predicted_palettes_overlays_and_the_report_have_the_colours(place):
    seen, outlined = set(), False
    for i in range(9):
        picture = Image.open(place / "masks" / f"i{i}.png")
        assert picture.mode == "P" and picture.getpalette()[:9] == [0, 0, 0, *OUTER, *RING]
        ids, drawn = np.asarray(picture), pixels(place / "masks" / f"i{i}_overlay.png")
        seen |= set(ids.ravel().tolist())
        edge = np.zeros(ids.shape, dtype=bool)
        edge[:, 1:] = (ids[:, 1:] != ids[:, :-1]) & (ids[:, 1:] == 1)
        outlined |= edge.any()
        assert (drawn[edge] == OUTER).all()
    assert 1 in seen <= {0, 1, 2} and outlined
    evaluate(EvaluateSettings(run=str(place / "run")))
    text = (place / "run/report.html").read_text(encoding="utf-8")
    legend = re.findall(r'style="background: (#\w+)"></span>(\w+)</span>', text)
    assert legend == [("#010203", "core"), ("#ffffff", "ring")]


def test_other_masks_are_mapped_as_those_of_the_training_were(place, tmp_path):
    images, masks = str(place / "data/images"), str(place / "data/masks")
    evaluate(
        EvaluateSettings(run=str(place / "run"), images=images, masks=masks, output=str(tmp_path), precision="fp32")
    )
    both, either = np.zeros((2, 2))
    for i in range(9):
        said, stored = pixels(place / "masks" / f"i{i}.png"), pixels(place / "data/masks" / f"i{i}.png")
        valid = stored != 4
        for place_of, (class_id, values) in enumerate({1: (1, 2), 2: (3,)}.items()):
            true, mine = np.isin(stored, values)[valid], (said == class_id)[valid]
            both[place_of] += (true & mine).sum()
            either[place_of] += (true | mine).sum()
    scores = json.loads((tmp_path / "metrics.json").read_text())["classes"]
    assert [scores["core"]["iou"], scores["ring"]["iou"]] == pytest.approx((both / either).tolist())
    assert both.all()


def test_a_run_whose_classes_or_split_were_changed_is_not_continued(workspace, tmp_path):
    write_four_classes(tmp_path)
    with pytest.raises(Crash):
        train(settings_of(workspace, tmp_path, epochs=2), crash_after(3))
    config = tmp_path / "run/config.yaml"
    values = yaml.safe_load(config.read_text())
    for change, message in (
        ({"class_map": {"inner": "core"}}, r"config.yaml: class_map=\{'inner': 'core'\}, but the run began with \{"),
        ({"class_colours": None}, "class_colours=None, but"),
        ({"folds": 3}, "folds=3, but the run began with None"),
        ({"ignore_index": 7}, "ignore_index=7, but the run began with 255"),
    ):
        config.write_text(yaml.safe_dump({**values, **change}))
        with pytest.raises(SettingsError, match=message):
            resume(tmp_path / "run")
    config.write_text(yaml.safe_dump({**values, "max_megapixels": 32.0}))
    assert resume(tmp_path / "run").adapter.is_dir()


def test_masks_in_colour_are_scored_in_the_colours_of_the_training(workspace, tmp_path, capsys):
    write_data(tmp_path / "data", classes=3)
    table = np.array([(0, 0, 0), (10, 20, 30), (200, 100, 0)], dtype=np.uint8)
    (tmp_path / "colours").mkdir()
    for path in (tmp_path / "data/masks").iterdir():
        Image.fromarray(table[pixels(path)]).save(tmp_path / "colours" / path.name)
    colours = {"background": "#000000", "leaf": "#0a141e", "stem": "#c86400"}
    masks = str(tmp_path / "colours")
    changes = {"masks": masks, "mask_format": "colours", "colours": colours, "classes": None, "class_colours": None}
    run = train(settings_of(workspace, tmp_path, **changes, class_map=None, max_steps=2))
    assert Predictor.from_folder(run.path).colours == {0: (0, 0, 0), 1: (10, 20, 30), 2: (200, 100, 0)}
    given = ["evaluate", run.path, "--images", tmp_path / "data/images", "--output", tmp_path / "out"]
    scores = []
    for how in (["--masks", masks], ["--masks", tmp_path / "data/masks", "--mask_format", "ids"]):
        outcome = convlora(capsys, *given, *how)
        assert outcome.code == 0, outcome.errors
        scores.append(json.loads((tmp_path / "out/metrics.json").read_text())["scores"])
    assert scores[0] == scores[1]
    assert_one_line(convlora(capsys, *given, "--masks", masks, "--mask_format", "word"), 2, "must be one of auto, ids")
