import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from convlora.conversion.coco import packed, runs
from convlora.conversion.pictures import Found
from convlora.data.labels.bits import IGNORED
from convlora.data.labels.format import LabelFormat
from tests.conversion.masks import LABELS, PICTURE, convert, masks


@given(masks(classes=2))
def test_run_lengths_are_those_of_pycocotools(mask):
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    found = Found(1, int(rows.min()), int(columns.min()), mask[box] > 0)
    text = packed(runs(found, mask.shape))
    assert text == coco_masks.encode(np.asfortranarray(mask))["counts"].decode()


def read(folder):
    """Class ids of each image, as COCO's own library paints them, by file name."""
    coco = COCO(str(folder / "annotations.json"))
    result = {}
    for image in coco.imgs.values():
        ids = np.zeros((image["height"], image["width"]), dtype=np.uint8)
        for annotation in coco.imgToAnns[image["id"]]:
            mask = coco.annToMask(annotation)
            assert annotation["area"] == mask.sum() and annotation["iscrowd"] == 0
            rows, columns = np.nonzero(mask)
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
            assert not ids[mask > 0].any(), "annotations overlap"
            ids[mask > 0] = annotation["category_id"]
        result[image["file_name"]] = ids
    return result


@pytest.mark.parametrize("shapes", ["masks", "polygons"])
@pytest.mark.parametrize("objects", ["components", "classes"])
@settings(max_examples=15)
@given(mask=masks())
def test_the_library_of_coco_reads_the_same_masks(shapes, objects, mask):
    with tempfile.TemporaryDirectory() as folder:
        out, notes = convert(Path(folder), [mask, PICTURE], "coco", shapes=shapes, objects=objects)
        assert notes == []
        found = read(out)
        assert list(found) == ["p0.png", "p1.png"]
        assert np.array_equal(found["p0.png"], mask) and np.array_equal(found["p1.png"], PICTURE)


def test_objects_are_what_touches_or_all_of_a_class(tmp_path):
    counts = {}
    for objects in ("components", "classes"):
        out, _ = convert(tmp_path / objects, [PICTURE], "coco", objects=objects)
        content = json.loads((out / "annotations.json").read_text())
        counts[objects] = [annotation["category_id"] for annotation in content["annotations"]]
    assert counts == {"components": [1, 1, 2, 2], "classes": [1, 2]}  # the diagonal pixel belongs to the ring


def test_categories_are_the_classes_by_id_with_their_colours(tmp_path):
    labels = LabelFormat(LABELS.classes, "ids", 255, colours=((0, 0, 0), (1, 2, 3), (250, 0, 9)))
    out, _ = convert(tmp_path, [np.zeros((4, 5), dtype=np.uint8)], "coco", labels=labels)
    content = json.loads((out / "annotations.json").read_text())
    assert [(c["id"], c["name"], c["color"]) for c in content["categories"]] == [
        (1, "leaf", [1, 2, 3]),
        (2, "stem & root", [250, 0, 9]),
    ]
    assert content["annotations"] == []
    assert content["images"] == [{"id": 1, "width": 5, "height": 4, "file_name": "p0.png"}]


def test_classes_that_overlap_are_objects_that_do(tmp_path):
    fields = np.array([[1, 3, 2, 0]], dtype=np.uint8)  # bit fields: leaf, both, stem, none
    labels = LabelFormat(LABELS.classes, "bits", IGNORED, multilabel=True)
    out, _ = convert(tmp_path, [fields], "coco", labels=labels)
    coco = COCO(str(out / "annotations.json"))
    painted = {a["category_id"]: coco.annToMask(a).tolist() for a in coco.anns.values()}
    assert painted == {1: [[1, 1, 0, 0]], 2: [[0, 1, 1, 0]]}


def test_ignored_pixels_are_told_of(tmp_path):
    out, notes = convert(tmp_path, [np.array([[255, 1, 255]], dtype=np.uint8)], "coco")
    assert notes == ["2 ignored pixels are background now, because coco knows none"]
    assert read(out)["p0.png"].tolist() == [[0, 1, 0]]
