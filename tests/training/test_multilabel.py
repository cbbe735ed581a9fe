"""Classes that may overlap, from masks of channels to scores, pictures and other programs."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from convlora import Predictor, read_image
from convlora.conversion.settings import TARGETS
from convlora.evaluation.evaluate import evaluate
from convlora.evaluation.settings import EvaluateSettings
from convlora.inference.folder import predict_folder
from convlora.inference.settings import PredictSettings
from convlora.training.run import train
from tests.cli.commands import assert_one_line, convlora
from tests.evaluation.pages import Page
from tests.training.overlapping import CLASSES, COLOURS, write_overlapping
from tests.training.runs import quick_settings

RGB = {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 158, 115)}  # two are chosen, the third is of the palette


@pytest.fixture(scope="module")
def place(workspace, tmp_path_factory):
    """A folder with the data, and in `run` and `masks` a run and its predictions; and the truth by name."""
    folder = tmp_path_factory.mktemp("overlapping")
    truth = write_overlapping(folder)
    settings = quick_settings(
        workspace,
        images=str(folder / "images"),
        masks=str(folder / "channels"),
        output=str(folder / "run"),
        task="multilabel",
        classes=CLASSES,
        class_colours=COLOURS,
        class_weights="balanced",
        epochs=6,
        evaluate_every=9,
        method="decoder",
    )
    train(settings)
    places = {"run": str(folder / "run"), "images": str(folder / "images"), "output": str(folder / "masks")}
    predict_folder(PredictSettings(**places, overlays=True, palette=True, precision="fp32"))
    return folder, truth


def predicted(folder, name):
    return np.stack([np.asarray(Image.open(folder / "masks" / f"{name}_{part}.png")) for part in CLASSES[1:]], -1)


def test_there_is_one_mask_a_class_and_they_are_what_the_model_says(place):
    folder, truth = place
    names = {f"{name}_{part}.png" for name in truth for part in (*CLASSES[1:], "overlay")}
    assert {path.name for path in (folder / "masks").iterdir()} == names
    predictor = Predictor.from_folder(folder / "run", precision="fp32")
    found = np.zeros(3, dtype=int)
    for name in truth:
        fields = predictor(read_image(folder / "images" / f"{name}.png"))
        want = np.stack([fields >> i & 1 for i in range(3)], -1) * 255
        np.testing.assert_array_equal(predicted(folder, name), want)
        found += (want > 0).any((0, 1))
    assert found.all()  # else the test says nothing
    assert {i: predictor.colours[i] for i in RGB} == RGB


def test_masks_carry_the_colours_in_their_palettes_and_overlays_show_them(place):
    folder, truth = place
    seen = set()
    for name in truth:
        for class_id, part in enumerate(CLASSES[1:], 1):
            picture = Image.open(folder / "masks" / f"{name}_{part}.png")
            assert picture.mode == "P" and tuple(picture.getpalette()[3 * 255 : 3 * 256]) == RGB[class_id]
        drawn = np.asarray(Image.open(folder / "masks" / f"{name}_overlay.png"))
        seen |= {c for c, colour in RGB.items() if (drawn == colour).all(-1).any()}
    assert seen == set(RGB)


@pytest.mark.parametrize("masks", ["channels", "files"])
def test_scores_of_each_class_are_those_of_the_written_masks_by_hand(place, masks, tmp_path):
    folder, truth = place
    pattern = "{stem}_{class}.png" if masks == "files" else None
    settings = EvaluateSettings(
        run=str(folder / "run"),
        images=str(folder / "images"),
        masks=str(folder / masks),
        mask_pattern=pattern,
        output=str(tmp_path),
        precision="fp32",
    )
    evaluate(settings)
    scores = json.loads((tmp_path / "metrics.json").read_text())
    said, there = (np.zeros((2, 3), dtype=int) for _ in range(2))
    for name, mask in truth.items():
        prediction = predicted(folder, name) > 0
        said += [(prediction & mask).sum((0, 1)), (prediction | mask).sum((0, 1))]
        there += [mask.sum((0, 1)), prediction.sum((0, 1))]
    for i, name in enumerate(CLASSES[1:]):
        assert scores["classes"][name]["iou"] == pytest.approx(said[0, i] / said[1, i])
        assert scores["classes"][name]["dice"] == pytest.approx(2 * said[0, i] / there[:, i].sum())
    assert list(scores["classes"]) == CLASSES[1:]
    assert scores["scores"]["iou"] == pytest.approx(np.mean(said[0] / said[1]))


def test_the_report_names_and_colours_the_classes_and_says_what_a_mixture_means(place):
    folder, _ = place
    evaluate(EvaluateSettings(run=str(folder / "run")))
    text = (folder / "run" / "report.html").read_text(encoding="utf-8")
    legend = re.findall(r'class="swatch" style="background: (#\w+)"></span>(\w+)</span>', text)
    assert legend == [("#ff0000", "disc"), ("#00ff00", "square"), ("#009e73", "both")]
    page = Page(text)
    assert "each class has its outline" in page.text and "IoU by class" in page.text
    assert not re.search(r"<tr><td>background</td>", text)


def test_formats_of_objects_take_all_of_them_and_formats_of_one_class_a_pixel_refuse(place, capsys, tmp_path):
    folder, _ = place
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in (folder / "masks").iterdir():
        Image.open(path).save(masks / path.name)
    for target in TARGETS:
        output = tmp_path / target
        given = [masks, "--images", folder / "images", "--run", folder / "run", "--to", target, "--output", output]
        outcome = convlora(capsys, "convert-masks", *given)
        if target in ("nifti", "dicom-seg", "colours"):
            assert_one_line(outcome, 3, "classes of this model overlap, .* Choose coco, labelme, yolo, cvat or geojson")
            assert not output.exists()
        else:
            assert outcome.code == 0 and any(output.rglob("*")), outcome.errors
    coco = COCO(str(tmp_path / "coco" / "annotations.json"))
    for info in coco.loadImgs(coco.getImgIds()):
        fields = np.zeros((info["height"], info["width"], 3), dtype=bool)
        for annotation in coco.loadAnns(coco.getAnnIds(info["id"])):
            fields[..., annotation["category_id"] - 1] |= coco.annToMask(annotation) > 0
        np.testing.assert_array_equal(fields, predicted(folder, info["file_name"].split(".")[0]) > 0)
