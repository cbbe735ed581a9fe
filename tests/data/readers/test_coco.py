import copy
import json
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from pycocotools.coco import COCO

from convlora.data.findings.checking import check_data
from convlora.data.readers.coco_file import read_coco_file
from convlora.data.readers.coco_shapes import unpacked
from convlora.data.settings import DataSettings
from convlora.errors import ConvloraError, DataError, MaskError, PairingError, SettingsError
from tests.data.readers.drawing import found, inside, masks_of, star, write_image, write_json
from tests.data.readers.mutation import mutations

HEIGHT, WIDTH = 40, 50
SQUARE = [4, 4, 20, 4, 20, 20, 4, 20]


def annotation(image, category, outline, **more):
    return {"id": 1, "image_id": image, "category_id": category, "segmentation": outline, "iscrowd": 0} | more


def document(annotations, images=("a.jpg", "b.jpg"), categories=((90, "tree"), (7, "car"))):
    return {
        "info": {"year": 2017},
        "images": [
            {"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH} for i, name in enumerate(images, 100)
        ],
        "categories": [{"id": key, "name": name, "supercategory": "thing"} for key, name in categories],
        "annotations": annotations,
    }


@pytest.fixture
def root(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / name, HEIGHT, WIDTH)
    return tmp_path


def of(root, annotations, **settings):
    write_json(root / "instances.json", document(annotations))
    return found(root, **settings)


def packed(mask):
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def test_all_kinds_of_outlines_are_the_masks_that_they_encode(root):
    rng = np.random.default_rng(0)
    ring, blob = star(rng, HEIGHT, WIDTH).round(2), rng.random((HEIGHT, WIDTH)) > 0.6
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[2], blob.T.ravel(), [2]]))))
    counts = [0, *runs.tolist()] if blob[0, 0] else runs.tolist()
    blob_masks = {
        "packed": packed(blob),
        "runs": {"size": [HEIGHT, WIDTH], "counts": counts},
    }
    for outline in blob_masks.values():
        mask = masks_of(of(root, [annotation(100, 7, outline)]))["a"]
        np.testing.assert_array_equal(mask, blob)
    parts = [ring.ravel().tolist(), SQUARE]
    mask = masks_of(of(root, [annotation(100, 90, parts)]))["a"]
    square = np.reshape(SQUARE, (-1, 2))
    np.testing.assert_array_equal(mask, 2 * (inside([ring], HEIGHT, WIDTH) | inside([square], HEIGHT, WIDTH)))


def test_masks_agree_with_the_reference_library(root):
    rng = np.random.default_rng(1)
    rings = [star(rng, HEIGHT, WIDTH, reach=0.45) for _ in range(2)]
    made = [annotation(100 + i, 7, [r.ravel().tolist()], id=i + 1) for i, r in enumerate(rings)]
    masks = masks_of(of(root, made))
    reference = COCO(root / "instances.json")
    for i, name in enumerate("ab"):
        theirs = reference.annToMask(reference.loadAnns(reference.getAnnIds(100 + i))[0]).astype(bool)
        assert (theirs ^ (masks[name] == 1)).sum() <= 12  # of about 300 pixels, those on the outline


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_packed_run_lengths_are_those_of_the_reference_library(height, width, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    counts = unpacked(packed(mask)["counts"])
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    np.testing.assert_array_equal(flat.reshape(width, height).T, mask)


@given(st.text(max_size=30))
def test_text_that_is_no_run_lengths_is_no_run_lengths(text):
    values = unpacked(text)
    assert values is None or (values.dtype == np.int64 and len(values))


def test_classes_are_the_categories_by_ascending_id(root):
    data = of(root, [annotation(100, 90, [SQUARE]), annotation(101, 7, [SQUARE])])
    assert data.labels.classes == ("background", "car", "tree") and data.labels.ignore_index == 255
    masks = masks_of(data)
    assert masks["a"][10, 10] == 2 and masks["b"][10, 10] == 1


def test_small_objects_stay_visible_whatever_the_order_of_the_file(root):
    small = [8, 8, 12, 8, 12, 12, 8, 12]
    for order in (1, -1):
        made = [annotation(100, 7, [SQUARE]), annotation(100, 90, [small])][::order]
        mask = masks_of(of(root, made))["a"]
        assert (mask == 2).sum() == 16 and (mask == 1).sum() == 256 - 16


def test_overlapping_objects_keep_both_classes_if_classes_may_overlap(root):
    made = [annotation(100, 7, [SQUARE]), annotation(100, 90, [[8, 8, 12, 8, 12, 12, 8, 12]])]
    data = of(root, made, task="multilabel")
    mask = masks_of(data)["a"]
    assert data.labels.multilabel and mask[9, 9] == 3 and mask[5, 5] == 1 and mask[0, 0] == 0


def test_crowds_are_ignored_but_never_over_an_object(root):
    crowd = np.zeros((HEIGHT, WIDTH), dtype=bool)
    crowd[10:30] = True
    for order in (1, -1):
        made = [annotation(100, 7, [SQUARE]), annotation(100, 7, packed(crowd), iscrowd=1)][::order]
        mask = masks_of(of(root, made))["a"]
        assert (mask == 1).sum() == 256 and mask[25, 30] == 255 and mask[5, 30] == 0


def test_an_object_known_by_its_box_only_is_ignored_and_told(root):
    made = [annotation(100, 7, [SQUARE]), annotation(100, 7, [], bbox=[30, 30, 5, 5])]
    data = of(root, made)
    assert (masks_of(data)["a"] == 255).sum() == 25
    assert "1 objects known only by their box: the box is ignored in training and scores" in data.notes
    with pytest.raises(MaskError, match=r"boxes without outlines \(1 of them\)"):
        of(root, made[1:])


def test_images_without_annotations_are_background_and_none_with_any_is_an_error(root):
    data = of(root, [annotation(100, 7, [SQUARE])])
    assert not masks_of(data)["b"].any()
    assert "1 of 2 images without annotations are background only: b" in data.notes
    with pytest.raises(MaskError, match="none of the 2 images has annotations"):
        of(root, [])


def test_outlines_that_cannot_be_painted_are_counted(root):
    flawed = [
        [1, 2, 3, 4],
        [1, 1, 5, 5, 9, 9],
        [1, 2, 3],
        [900, 900, 950, 900, 950, 950],
        [1, 2, float("nan"), 4, 9, 9],
    ]
    data = of(root, [annotation(100, 7, [SQUARE, *flawed]), annotation(100, 7, None)])
    assert any(
        note.startswith("left out 6 outlines: ") and "1 with fewer than 3 points" in note and "1 with no area" in note
        for note in data.notes
    )


def test_a_size_that_is_not_the_files_is_an_error_that_names_both(root):
    write_image(root / "a.jpg", WIDTH, HEIGHT)
    write_json(root / "instances.json", document([annotation(100, 7, [SQUARE])]))
    with pytest.raises(
        DataError, match=r"instances.json, a.jpg: 40 x 50 .*a.jpg has 50 x 40\. One of the two is turned"
    ):
        check_data(DataSettings(images=str(root), val_fraction=0, test_fraction=0))


def test_the_published_layout_gives_its_splits(root):
    for split, names in (("train", ["1.jpg", "2.jpg"]), ("val", ["1.jpg"])):
        made = document([annotation(100, 7, [SQUARE])], images=names)
        write_json(root / f"set/annotations/instances_{split}2017.json", made)
        write_json(root / f"set/annotations/captions_{split}2017.json", made | {"categories": []})
        for name in names:
            write_image(root / f"set/{split}2017" / name, HEIGHT, WIDTH)
    data = found(root / "set")
    assert [(s.name, s.split) for s in data.samples] == [
        ("train2017/1", "train"), ("train2017/2", "train"), ("val2017/1", "val"),
    ]  # fmt: skip
    assert any("left out captions_train2017.json" in note for note in data.notes)
    assert "split as the files say: 2 train, 1 val" in data.notes
    one = found(root / "set/train2017", root / "set/annotations/instances_train2017.json")
    assert [s.name for s in one.samples] == ["1", "2"] and all(s.split is None for s in one.samples)
    assert len(found(root / "set/annotations/instances_val2017.json").samples) == 1


def test_roboflows_layout_gives_its_splits_and_drops_its_top_category(root):
    for split in ("train", "valid", "test"):
        made = document([annotation(100, 1, [SQUARE])], images=["x.rf.1f.jpg"], categories=())
        made["categories"] = [
            {"id": 0, "name": "cells", "supercategory": "none"},
            {"id": 1, "name": "RBC", "supercategory": "cells"},
        ]
        write_json(root / "set" / split / "_annotations.coco.json", made)
        write_image(root / "set" / split / "x.rf.1f.jpg", HEIGHT, WIDTH)
    data = found(root / "set")
    assert [(s.name, s.split) for s in data.samples] == [
        ("test/x.rf.1f", "test"), ("train/x.rf.1f", "train"), ("valid/x.rf.1f", "val"),
    ]  # fmt: skip
    assert data.labels.classes == ("background", "RBC")
    assert "left out the category 'cells', which only stands above the others" in data.notes


def test_a_category_named_background_is_the_background(root):
    made = document([annotation(100, 1, [SQUARE]), annotation(100, 2, [[8, 8, 12, 8, 12, 12, 8, 12]])])
    made["categories"] = [{"id": 2, "name": "Background"}, {"id": 1, "name": "cell"}]
    write_json(root / "instances.json", made)
    data = found(root)
    assert data.labels.classes == ("background", "cell") and masks_of(data)["a"][9, 9] == 0


def broken(**change):
    return document([annotation(100, 7, [SQUARE])]) | change


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (broken(categories=[{"id": 1}]), DataError, r"categories\[0\] has no name"),
        (
            broken(categories=[{"id": 7, "name": "a"}, {"id": 7, "name": "b"}]),
            DataError,
            "1 ids of categories occur more",
        ),
        (broken(categories=[]), MaskError, "categories that are not listed, with the ids 7"),
        (broken(images=[]), DataError, "annotations of 1 images that it does not list, with the ids 100"),
        (broken(images={}), DataError, "its images are no list"),
        (broken(images=[3]), DataError, r"images\[0\] is no object"),
        (broken(annotations=[{"image_id": 100}]), DataError, "has no category_id"),
        (broken(annotations=[{"category_id": 7}]), DataError, r"annotations\[0\] has no image_id"),
        (document([], images=["a.jpg", "c.jpg", "../b.jpg", "d.jpg"]), PairingError, r"2 of 4 images are not in"),
        (document([], images=["a.jpg", "./a.jpg"]), PairingError, "1 images are there more than once: a.jpg"),
        (
            document([], categories=[(i, f"c{i}") for i in range(300)]),
            MaskError,
            "has 300 classes; a mask holds up to 254",
        ),
        (
            document([annotation(100, 7, {"size": [5, 5], "counts": [25]})]),
            MaskError,
            r"annotation 1: run lengths of a mask of \[5, 5\] pixels .* image of \[40, 50\]",
        ),
        (
            document([annotation(100, 7, {"size": [HEIGHT, WIDTH], "counts": [3, 4]})]),
            MaskError,
            "runs that do not add up",
        ),
        (document([annotation(100, 7, {"size": [HEIGHT, WIDTH], "counts": "~~"})]), MaskError, "damaged"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(root, content, error, message):
    write_json(root / "instances.json", content)
    with pytest.raises(error, match=message) as raised:
        found(root, root / "instances.json")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "[", '{"a":', "[" * 10**5, '{"images": ' + "9" * 5000 + "}", "null", "\x00\xff"])
def test_what_is_no_json_is_refused(root, text):
    (root / "bad.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"bad\.json: "):
        found(root, root / "bad.json", format="coco")


def test_settings_that_contradict_the_file_are_refused(root):
    with pytest.raises(SettingsError, match="ignore_index"):
        of(root, [annotation(100, 7, [SQUARE])], ignore_index=9)


def test_files_with_other_categories_are_not_mixed(root):
    write_json(root / "train.json", document([annotation(100, 7, [SQUARE])], images=["a.jpg"]))
    write_json(root / "val.json", document([], images=["b.jpg"], categories=[(7, "cat")]))
    with pytest.raises(DataError, match=r"val.json has other categories than .*train.json: 7 'cat' instead of"):
        found(root)


def test_images_that_no_file_names_are_told(root):
    write_image(root / "other/c.jpg")
    data = of(root, [annotation(100, 7, [SQUARE])])
    assert "left out 1 image files that instances.json does not name: other/c.jpg" in data.notes


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_mutated_file_is_read_or_refused_in_one_line(root, data):
    good = document(
        [
            annotation(100, 7, [SQUARE], bbox=[1, 2, 3, 4]),
            annotation(101, 90, packed(np.eye(HEIGHT, WIDTH) > 0), iscrowd=1),
        ]
    )
    write_json(root / "instances.json", data.draw(mutations(copy.deepcopy(good))))
    try:
        masks_of(found(root, root / "instances.json", format="coco"))
    except ConvloraError as error:
        assert "\n" not in str(error)


def test_outlines_take_little_more_memory_than_their_numbers(root):
    rng = np.random.default_rng(0)
    rings = (rng.random((2000, 400)) * 40).round(2)
    path = write_json(
        root / "big.json", document([annotation(100, 7, [r.tolist()], id=i) for i, r in enumerate(rings)])
    )
    tracemalloc.start()
    start = time.perf_counter()
    file = read_coco_file(path)
    took, (kept, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(file.annotations[100]) == 2000 and took < 10
    assert kept < 1.4 * rings.nbytes and peak < kept + 2.5 * path.stat().st_size  # the text as bytes and as characters


def test_a_file_is_parsed_once(root, monkeypatch):
    parsed = []
    real = json.loads
    monkeypatch.setattr(json, "loads", lambda *a, **k: parsed.append(1) or real(*a, **k))
    of(root, [annotation(100, 7, [SQUARE])])
    assert len(parsed) == 1
