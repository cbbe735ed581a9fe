import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from convlora.conversion.convert import convert_samples
from convlora.conversion.names import read_classes
from convlora.conversion.settings import SHAPES, TARGETS, ConversionOptions, ConvertMasksSettings
from convlora.data.samples import Sample
from convlora.errors import MaskError, OutputError, PairingError, SettingsError, WeightsError
from tests.cli.commands import assert_one_line, convlora, snapshot
from tests.conversion.masks import LABELS, PICTURE, convert, save_samples


def test_predictions_open_in_another_tool_with_the_names_of_the_run(capsys, tmp_path, workspace, finished):
    images, masks, out = workspace / "data" / "images", tmp_path / "masks", tmp_path / "coco"
    predict = ["predict", finished.path, images, "--output", masks, "--overlays", "--probabilities"]
    assert convlora(capsys, *predict).code == 0
    for run in (finished.path, finished.adapter):
        out = tmp_path / f"coco-{run.name}"
        arguments = ["convert-masks", masks, "--images", images, "--to", "coco", "--run", run, "--output", out]
        outcome = convlora(capsys, *arguments)
        assert outcome.code == 0 and outcome.errors == [], outcome.errors
        assert outcome.out == f"coco: annotations.json in {out}\n"
        coco = COCO(str(out / "annotations.json"))
        assert [category["name"] for category in coco.cats.values()] == ["foreground"]
        assert len(coco.imgs) == len(list(images.iterdir()))
        for number, image in coco.imgs.items():
            painted = sum(coco.annToMask(annotation) for annotation in coco.imgToAnns[number])
            assert np.array_equal(painted + np.zeros((image["height"], image["width"])), _mask(masks, image))


def _mask(masks, image):
    with Image.open(masks / image["file_name"]) as mask:
        return np.array(mask)


@pytest.mark.parametrize("target", [target for target in TARGETS if target not in ("nifti", "dicom-seg")])
def test_every_format_is_whole_or_absent(tmp_path, target):
    samples = save_samples(tmp_path, [PICTURE, PICTURE])
    Image.fromarray(np.full((7, 7), 9, dtype=np.uint8)).save(samples[1].mask)
    with pytest.raises(MaskError, match=r"p1.png: values 9 are not among 0..2"):
        convert_samples(samples, LABELS, target, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "masks"]


def test_an_output_that_holds_files_is_left_alone(tmp_path):
    samples = save_samples(tmp_path, [PICTURE])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match="is not empty"):
        convert_samples(samples, LABELS, "coco", tmp_path / "out")
    assert snapshot(tmp_path) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        convert_samples(samples, LABELS, "coco", tmp_path / "file")


def test_a_mask_of_another_size_than_its_image_is_named(tmp_path):
    (sample,) = save_samples(tmp_path, [PICTURE])
    Image.fromarray(PICTURE[:5]).save(sample.mask)
    with pytest.raises(MaskError, match=r"p0.png: 5 x 7 pixels \(height x width\), but its image"):
        convert_samples([sample], LABELS, "labelme", tmp_path / "out")


@pytest.mark.parametrize("name", ["../up", "/etc/x", "a/../../b"])
def test_names_do_not_lead_out_of_the_folder(tmp_path, name):
    (sample,) = save_samples(tmp_path, [PICTURE])
    with pytest.raises(PairingError, match="no name for a file below the output"):
        convert_samples([Sample(name, sample.image, sample.mask)], LABELS, "labelme", tmp_path / "out")


def test_images_in_folders_keep_their_places(tmp_path):
    samples = []
    for part in ("a", "b"):
        (one,) = save_samples(tmp_path / part, [PICTURE])
        samples.append(Sample(f"{part}/p0", one.image, one.mask))
    convert_samples(samples, LABELS, "coco", tmp_path / "coco")
    content = json.loads((tmp_path / "coco" / "annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a/images/p0.png", "b/images/p0.png"]
    convert_samples(samples, LABELS, "yolo", tmp_path / "yolo")
    assert (tmp_path / "yolo" / "labels" / "b" / "images" / "p0.txt").is_file()
    convert_samples(samples, LABELS, "labelme", tmp_path / "labelme")
    path = tmp_path / "labelme" / "b" / "p0.json"
    assert (path.parent / json.loads(path.read_text())["imagePath"]).samefile(samples[1].image)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"to": "cooc"}, "format 'cooc' must be one of coco, labelme"),
        ({"classes": None}, "give either --run RUN or --classes"),
        ({"run": "r"}, "give either --run RUN or --classes"),
        ({"shapes": "boxes"}, "it must be masks or polygons"),
        ({"to": "yolo", "shapes": "masks"}, "yolo has one kind of shape"),
        ({"objects": "some"}, "components, classes"),
        ({"tolerance": 1.0}, "is for polygons, and coco gets masks"),
        ({"to": "yolo", "tolerance": float("nan")}, "at least 0 and finite"),
        ({"to": "nifti", "copy_images": True}, "copy_images is not for nifti"),
        ({"max_megapixels": 0.0}, "more than 0"),
    ],
)
def test_settings_that_contradict_are_one_line(changes, message):
    values = {"masks": "m", "images": "i", "to": "coco", "output": "o", "classes": ["background", "a"]}
    with pytest.raises(SettingsError, match=message):
        ConvertMasksSettings(**{**values, **changes})


def test_the_formats_that_the_settings_speak_of_are_there():
    assert SHAPES.keys() <= TARGETS.keys()
    assert all(ConversionOptions().option_problems(target) == [] for target in TARGETS)


@pytest.mark.parametrize(
    "content", ["", "{}", '{"metadata": 3}', "[" * 100_000, '{"metadata": {"id2label": {"7": "a"}}}']
)
def test_a_damaged_run_is_one_line(tmp_path, content):
    with pytest.raises(WeightsError, match="is not a finished run"):
        read_classes(tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(WeightsError, match="does not name classes"):
        read_classes(tmp_path)


def test_the_command_says_what_is_wrong_in_one_line(capsys, tmp_path):
    save_samples(tmp_path, [PICTURE])
    command = ["convert-masks", tmp_path / "masks", "--images", tmp_path / "images", "--output", tmp_path / "out"]
    outcome = convlora(capsys, *command, "--to", "coco", "--classes", "background,leaf")
    assert_one_line(outcome, 3, r"p0.png: values 2 are no class ids of these 2 classes, 0..1; 8 of 49 pixels")
    assert_one_line(convlora(capsys, *command, "--to", "coco", "--run", tmp_path), 4, "not a finished run")
    assert_one_line(convlora(capsys, *command, "--to", "coco"), 2, "--classes background,NAME")
    Image.fromarray((PICTURE > 0) * np.uint8(255)).save(tmp_path / "masks" / "p0.png")
    outcome = convlora(capsys, *command, "--to", "coco", "--classes", "background,leaf")
    assert_one_line(outcome, 3, "values 255 are no class ids")  # not ignored pixels, as in training
    Image.fromarray(PICTURE).save(tmp_path / "masks" / "p0.png")
    outcome = convlora(capsys, *command, "--to", "yolo", "--classes", "background,leaf,stem")
    assert outcome.code == 0 and "note: YOLO looks for images beside labels" in outcome.out


def test_the_empty_mask_is_written_in_every_format(tmp_path):
    for target in TARGETS:
        if target not in ("nifti", "dicom-seg"):
            out, _ = convert(tmp_path / target, [np.zeros((3, 4), dtype=np.uint8)], target)
            assert any(path.is_file() for path in out.rglob("*"))
