import copy

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from convlora.data.labels.bits import members
from convlora.errors import ConvloraError, DataError, MaskError, PairingError
from tests.data.readers.drawing import found, masks_of, write_image, write_json
from tests.data.readers.mutation import mutations

SEGMENTS = [
    {"id": 3_226_956, "category_id": 200, "iscrowd": 0},  # needs all three channels
    {"id": 7, "category_id": 1, "iscrowd": 0},
    {"id": 300, "category_id": 200, "iscrowd": 0},
    {"id": 9, "category_id": 1, "iscrowd": 1},
]
NUMBERS = np.array([[3_226_956, 3_226_956, 7, 0], [300, 9, 9, 7]])
EXPECTED = [[2, 2, 1, 255], [2, 255, 255, 1]]


def document(names):
    return {
        "images": [{"id": i, "file_name": f"{name}.jpg", "height": 2, "width": 4} for i, name in enumerate(names)],
        "annotations": [
            {"image_id": i, "file_name": f"{name}.png", "segments_info": copy.deepcopy(SEGMENTS)}
            for i, name in enumerate(names)
        ],
        "categories": [
            {"id": 200, "name": "rug", "isthing": 0, "supercategory": "floor"},
            {"id": 1, "name": "person", "isthing": 1, "supercategory": "person"},
        ],
    }


def write_segments(path, numbers):
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=-1)
    Image.fromarray(channels.astype(np.uint8)).save(path)


@pytest.fixture
def root(tmp_path):
    for split, names in (("train", ["a", "b"]), ("val", ["c"])):
        write_json(tmp_path / f"annotations/panoptic_{split}2017.json", document(names))
        for name in names:
            write_image(tmp_path / f"{split}2017/{name}.jpg", 2, 4)
            write_segments(tmp_path / f"annotations/panoptic_{split}2017/{name}.png", NUMBERS)
    return tmp_path


def test_segments_become_classes_and_void_and_crowds_are_ignored(root):
    data = found(root)
    assert data.labels.classes == ("background", "person", "rug")
    assert [(s.name, s.split) for s in data.samples] == [("a", "train"), ("b", "train"), ("c", "val")]
    assert all(mask.tolist() == EXPECTED and mask.dtype == np.int32 for mask in masks_of(data).values())
    assert data.notes[0].startswith("read as coco-panoptic") and not any("left out" in note for note in data.notes)


def test_a_folder_of_images_and_the_file(root):
    data = found(root / "val2017", root / "annotations/panoptic_val2017.json")
    assert [(s.name, s.split) for s in data.samples] == [("c", None)]


def test_segments_as_bit_fields(root):
    mask = masks_of(found(root, task="multilabel"))["a"]
    assert [members(int(value)) for value in mask[0, :3]] == [(2,), (2,), (1,)] and mask[0, 3] == -1


def test_images_without_segments_are_left_out_because_nothing_is_known_of_them(root):
    made = document(["a", "b"])
    made["annotations"].pop()
    write_json(root / "annotations/panoptic_train2017.json", made)
    data = found(root)
    assert [s.name for s in data.samples] == ["a", "c"] and "left out 1 images without segments: b" in data.notes


def change(root, **changes):
    made = document(["c"])
    made["annotations"][0] |= changes
    return found(root / "val2017", write_json(root / "annotations/panoptic_val2017.json", made))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"file_name": "../../x.png"}, PairingError, r"1 of 1 PNGs of segments are not in .*panoptic_val2017: "),
        ({"segments_info": [{"id": 0, "category_id": 1}]}, DataError, "a segment of c.png has the number 0"),
        ({"segments_info": SEGMENTS * 2}, DataError, "occurs once"),
        ({"segments_info": [{"id": 1}]}, DataError, "has no category_id"),
        ({"segments_info": 3}, DataError, "segments_info are no list"),
    ],
)
def test_what_is_wrong_in_the_file_is_said(root, changes, error, message):
    with pytest.raises(error, match=message):
        change(root, **changes)


def test_what_is_wrong_in_a_png_is_said(root):
    with pytest.raises(MaskError, match=r"c.png: 3 segments that its JSON file does not list, with the numbers 7, 9, "):
        masks_of(change(root, segments_info=SEGMENTS[:1]))
    Image.new("L", (4, 2)).save(root / "annotations/panoptic_val2017/c.png")
    with pytest.raises(MaskError, match="is RGB, not L"):
        masks_of(change(root))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_mutated_file_is_read_or_refused_in_one_line(root, data):
    path = write_json(root / "annotations/panoptic_val2017.json", data.draw(mutations(document(["c"]))))
    try:
        masks_of(found(root / "val2017", path, format="coco-panoptic"))
    except ConvloraError as error:
        assert "\n" not in str(error)


def test_segments_may_be_in_a_folder_of_any_name_below_that_of_the_file(tmp_path):
    write_json(tmp_path / "segments.json", document(["a", "b"]))
    for name in ("a", "b"):
        write_image(tmp_path / f"images/{name}.jpg", 2, 4)
        write_segments(tmp_path / f"pngs/{name}.png", NUMBERS)
    data = found(tmp_path)
    assert all(mask.tolist() == EXPECTED for mask in masks_of(data).values())
    assert not any("left out" in note for note in data.notes)
