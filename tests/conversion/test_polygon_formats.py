"""LabelMe, YOLO and CVAT, each read by hand as its own documentation says."""

import base64
import io
import json
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from PIL import Image

from convlora.conversion.convert import convert_samples
from convlora.data.labels.format import LabelFormat
from convlora.errors import MaskError, PairingError
from tests.conversion.masks import LABELS, PICTURE, convert, even_odd, masks, save_samples

IDS = {name: class_id for class_id, name in LABELS.id2label.items()}


def painted(shapes, size):
    """Class ids from pairs of class id and mask, none of which overlap."""
    ids = np.zeros(size, dtype=np.uint8)
    for class_id, mask in shapes:
        assert mask.any() and not ids[mask].any()
        ids[mask] = class_id
    return ids


def labelme(path):
    content = json.loads(path.read_text())
    size = content["imageHeight"], content["imageWidth"]
    assert content["imageData"] is None and content["version"]
    with Image.open(path.parent / content["imagePath"]) as image:
        assert image.size == size[::-1]
    shapes = []
    for shape in content["shapes"]:
        assert set(shape) == {"label", "points", "group_id", "description", "shape_type", "flags", "mask"}
        if shape["shape_type"] == "polygon":
            mask = even_odd([np.array(shape["points"])], size)
        else:  # as its label file and shape tools do: both corners are within
            (left, top), (right, bottom) = np.array(shape["points"]).astype(int)
            mask = np.zeros(size, dtype=bool)
            bitmap = np.array(Image.open(io.BytesIO(base64.b64decode(shape["mask"]))))
            mask[top : bottom + 1, left : right + 1] = bitmap.astype(bool)
        shapes.append((IDS[shape["label"]], mask))
    return painted(shapes, size)


def yolo(path, size):
    height, width = size
    shapes = []
    for line in path.read_text().splitlines():
        number, *values = line.split()
        points = np.array(values, dtype=float).reshape(-1, 2)
        assert points.min() >= 0 and points.max() <= 1
        shapes.append((int(number) + 1, even_odd([points * (width, height)], size)))
    return painted(shapes, size)


def cvat(image):
    size = int(image.get("height")), int(image.get("width"))
    shapes = []
    for shape in image:
        if shape.tag == "polygon":
            points = np.array([[float(v) for v in pair.split(",")] for pair in shape.get("points").split(";")])
            mask = even_odd([points], size)
        else:
            left, top, width, height = (int(shape.get(key)) for key in ("left", "top", "width", "height"))
            counts = [int(count) for count in shape.get("rle").split(",")]
            flat = np.concatenate([np.full(count, i % 2, dtype=bool) for i, count in enumerate(counts)])
            mask = np.zeros(size, dtype=bool)
            mask[top : top + height, left : left + width] = flat.reshape(height, width)
        shapes.append((IDS[shape.get("label")], mask))
    return painted(shapes, size)


@pytest.mark.parametrize("objects", ["components", "classes"])
@settings(max_examples=10, deadline=None)
@given(mask=masks())
def test_masks_come_back_exactly_from_every_format(objects, mask):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for shapes in ("polygons", "masks"):
            out, _ = convert(folder / f"l{shapes}", [mask, PICTURE], "labelme", shapes=shapes, objects=objects)
            assert np.array_equal(labelme(out / "p0.json"), mask) and np.array_equal(labelme(out / "p1.json"), PICTURE)
            out, _ = convert(folder / f"c{shapes}", [mask, PICTURE], "cvat", shapes=shapes, objects=objects)
            first, second = ElementTree.parse(out / "annotations.xml").getroot().iter("image")
            assert np.array_equal(cvat(first), mask) and np.array_equal(cvat(second), PICTURE)
        out, _ = convert(folder / "y", [mask, PICTURE], "yolo", objects=objects)
        assert np.array_equal(yolo(out / "labels" / "p0.txt", mask.shape), mask)
        assert np.array_equal(yolo(out / "labels" / "p1.txt", PICTURE.shape), PICTURE)


def test_parts_of_one_object_are_told_by_a_group(tmp_path):
    out, _ = convert(tmp_path, [PICTURE], "labelme")
    shapes = json.loads((out / "p0.json").read_text())["shapes"]
    groups = [shape["group_id"] for shape in shapes if shape["label"] == "leaf"]
    assert groups == [1, 1, None]  # the ring and the pixel at its corner; the island


def test_yolo_numbers_classes_without_the_background_and_says_where_images_belong(tmp_path):
    out, notes = convert(tmp_path / "a", [PICTURE, np.zeros((3, 3), dtype=np.uint8)], "yolo")
    table = yaml.safe_load((out / "data.yaml").read_text())
    assert table["names"] == {0: "leaf", 1: "stem & root"} and (table["train"], table["val"]) == ("images", "images")
    assert (out / "labels" / "p1.txt").read_text() == ""
    assert "put them into the folder images" in notes[0]
    out, notes = convert(tmp_path / "b", [PICTURE], "yolo", copy_images=True)
    assert notes == []
    assert (out / "images" / "p0.png").read_bytes() == (tmp_path / "b" / "images" / "p0.png").read_bytes()


def test_yolo_refuses_images_that_would_share_a_file(tmp_path):
    samples = save_samples(tmp_path, [PICTURE])
    samples[0].image.rename(tmp_path / "images" / "p0.jpg")
    again = save_samples(tmp_path, [PICTURE])[0]
    pair = [
        type(again)("p0.png", again.image, again.mask),
        type(again)("p0.jpg", tmp_path / "images/p0.jpg", again.mask),
    ]
    with pytest.raises(PairingError, match=r"p0.png and p0.jpg would share p0.txt.*Rename"):
        convert_samples(pair, LABELS, "yolo", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    convert_samples(pair, LABELS, "labelme", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"p0.png.json", "p0.jpg.json", "labels.txt"}


def test_cvat_names_labels_with_their_colours_and_escapes_them(tmp_path):
    labels = LabelFormat(("background", "a<b>&\"c'", "é"), "ids", 255, colours=((0, 0, 0), (255, 0, 16), (1, 2, 3)))
    out, _ = convert(tmp_path, [PICTURE], "cvat", labels=labels)
    root = ElementTree.parse(out / "annotations.xml").getroot()
    found = [(label.findtext("name"), label.findtext("color")) for label in root.iter("label")]
    assert found == [("a<b>&\"c'", "#ff0010"), ("é", "#010203")]
    assert root.findtext("version") == "1.1"


@pytest.mark.parametrize("character", ["\0", "\n", "\x1f", "\ud800", "\ufffe", "\uffff"])
def test_names_that_xml_cannot_hold_are_refused(tmp_path, character):
    labels = LabelFormat(("background", f"leaf{character}", "stem"), "ids", 255)
    with pytest.raises(MaskError, match="holds a character that XML cannot"):
        convert(tmp_path, [PICTURE], "cvat", labels=labels)


def test_copied_images_are_where_the_annotations_say(tmp_path):
    out, _ = convert(tmp_path / "labelme", [PICTURE], "labelme", copy_images=True)
    assert json.loads((out / "p0.json").read_text())["imagePath"] == "p0.png"
    assert np.array_equal(labelme(out / "p0.json"), PICTURE)
    for target in ("coco", "cvat"):
        out, _ = convert(tmp_path / target, [PICTURE], target, copy_images=True)
        assert (out / "images" / "p0.png").is_file()


@pytest.mark.parametrize("target", ["yolo", "labelme"])
def test_simplified_polygons_are_still_the_masks_nearly(tmp_path, target):
    rows, columns = np.mgrid[:120, :160]
    mask = ((rows - 60) ** 2 + (columns - 80) ** 2 < 50**2).astype(np.uint8)
    mask[(rows - 60) ** 2 + (columns - 80) ** 2 < 20**2] = 2
    sizes, found = [], None
    for tolerance in (0.0, 1.0):
        out, _ = convert(tmp_path / str(tolerance), [mask], target, tolerance=tolerance)
        path = out / "labels" / "p0.txt" if target == "yolo" else out / "p0.json"
        sizes.append(path.stat().st_size)
        shapes = []
        content = path.read_text()
        if target == "yolo":
            lines = [line.split() for line in content.splitlines()]
            shapes = [(int(n) + 1, np.array(v, dtype=float).reshape(-1, 2) * (160, 120)) for n, *v in lines]
        else:
            shapes = [(IDS[shape["label"]], np.array(shape["points"])) for shape in json.loads(content)["shapes"]]
        found = {class_id: even_odd([points], mask.shape) for class_id, points in shapes}
    assert sizes[1] < sizes[0] / 2
    for class_id, inside in found.items():
        truth = mask == class_id
        assert (inside & truth).sum() / (inside | truth).sum() > 0.97
