import base64
import copy
import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from convlora.data.findings.checking import check_data
from convlora.data.pixels.images import read_image
from convlora.data.settings import DataSettings
from convlora.data.sources import digest
from convlora.errors import ConvloraError, DataError, PairingError
from tests.data.readers.drawing import found, inside, masks_of, star, write_image, write_json
from tests.data.readers.mutation import mutations

HEIGHT, WIDTH = 40, 50
SQUARE = [[2.0, 2.0], [12.0, 2.0], [12.0, 12.0], [2.0, 12.0]]


def shape(label, points, kind="polygon", **more):
    points = np.asarray(points).tolist()
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


def document(shapes, image="a.jpg", **more):
    return {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": image,
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    } | more


def encoded(array, form="PNG"):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, form)
    return base64.b64encode(stream.getvalue()).decode()


def one(root, shapes, **more):
    write_image(root / "a.jpg", HEIGHT, WIDTH)
    write_json(root / "a.json", document(shapes, **more))
    return masks_of(found(root))["a"]


def test_polygons_are_the_pixels_inside_in_the_order_of_drawing(tmp_path):
    rng = np.random.default_rng(1)
    first, second = star(rng, HEIGHT, WIDTH).round(2), star(rng, HEIGHT, WIDTH).round(2)
    mask = one(tmp_path, [shape("b", first), shape("a", second)])
    expected = np.where(inside([first], HEIGHT, WIDTH), 2, 0)
    np.testing.assert_array_equal(mask, np.where(inside([second], HEIGHT, WIDTH), 1, expected))


def test_rectangles_have_two_corners_or_four_and_circles_a_centre_and_a_point(tmp_path):
    mask = one(tmp_path, [shape("x", [[30, 20], [10, 5]], "rectangle")])
    expected = np.zeros((HEIGHT, WIDTH))
    expected[5:20, 10:30] = 1
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(
        one(tmp_path, [shape("x", [[10, 5], [30, 5], [30, 20], [10, 20]], "rectangle")]), expected
    )
    mask = one(tmp_path, [shape("x", [[25, 20], [31, 28]], "circle")])
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    assert np.count_nonzero(mask != (np.hypot(x - 25, y - 20) <= 10)) <= 4  # a polygon of 1/20 pixel less


def test_masks_are_pictures_between_two_points(tmp_path):
    part = np.random.default_rng(0).random((6, 9)) > 0.5
    mask = one(tmp_path, [shape("x", [[4, 7], [12, 12]], "mask", mask=encoded(part))])
    expected = np.zeros((HEIGHT, WIDTH))
    expected[7:13, 4:13] = part
    np.testing.assert_array_equal(mask, expected)


def test_special_labels_ignore_and_cut_out_and_lines_are_told(tmp_path):
    inner = [[5, 5], [8, 5], [8, 8], [5, 8]]
    outer = [[20, 20], [40, 20], [40, 30], [20, 30]]
    shapes = [shape("x", SQUARE), shape("_background_", inner), shape("__ignore__", outer)]
    lines = [shape("y", [[1, 1], [9, 9]], "line"), shape("y", [[1, 1]], "point"), shape("y", SQUARE, "linestrip")]
    mask = one(tmp_path, shapes + lines)
    assert np.count_nonzero(mask == 1) == 91 and np.count_nonzero(mask == 255) == 200
    data = found(tmp_path)
    assert data.labels.classes == ("background", "x")
    assert "left out 3 shapes: 1 with no area (line), 1 with no area (linestrip), 1 with no area (point)" in data.notes


def test_a_list_of_labels_orders_the_classes_and_must_be_complete(tmp_path):
    one(tmp_path, [shape("x", SQUARE)])
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nz\nx\n")
    assert found(tmp_path).labels.classes == ("background", "z", "x")
    (tmp_path / "labels.txt").write_text("z\n")
    with pytest.raises(DataError, match=r"labels\.txt does not have 1 of the labels in the JSON files: x"):
        found(tmp_path)


def test_an_image_may_be_in_the_json_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for name in "abc":
        write_json(tmp_path / f"{name}.json", document([shape("x", SQUARE)], "gone.jpg", imageData=encoded(pixels)))
    checked = check_data(DataSettings(images=str(tmp_path)))
    image = checked.splits["train"][0].image
    np.testing.assert_array_equal(read_image(image), pixels)
    assert image.size(DataSettings(images="x").limits) == (HEIGHT, WIDTH) and len(digest(image)) == 64
    assert "3 images are taken out of their JSON files (imageData)" in checked.notes


def test_images_are_found_by_their_path_or_by_the_name_of_the_json_file(tmp_path):
    write_image(tmp_path / "images/one.jpg", HEIGHT, WIDTH)
    write_image(tmp_path / "images/two.png", HEIGHT, WIDTH)
    write_json(tmp_path / "json/one.json", document([shape("x", SQUARE)], "C:\\Users\\me\\images\\one.jpg"))
    write_json(tmp_path / "json/two.json", document([shape("x", SQUARE)], "before_renaming.png"))
    for images, masks in ((tmp_path, None), (tmp_path / "images", tmp_path / "json")):
        assert [s.image.name for s in found(images, masks).samples] == ["one.jpg", "two.png"]


def test_old_files_do_not_say_the_size_and_folders_may_be_splits(tmp_path):
    for split in ("train", "valid"):
        write_image(tmp_path / f"{split}/{split}_a.jpg", HEIGHT, WIDTH)
        old = document([shape("x", SQUARE)], f"{split}_a.jpg", imageHeight=None)
        del old["imageWidth"], old["shapes"][0]["shape_type"]
        write_json(tmp_path / f"{split}/{split}_a.json", old)
    data = found(tmp_path)
    assert [s.split for s in data.samples] == ["train", "val"]
    assert all(mask.shape == (HEIGHT, WIDTH) and mask.sum() == 100 for mask in masks_of(data).values())


def test_a_file_is_recognised_however_long_its_shapes_are(tmp_path):
    write_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    long = document([shape("x", SQUARE, description="y" * 200_000)])
    assert list(long).index("shapes") < list(long).index("imagePath")
    write_json(tmp_path / "a.json", long)
    assert [sample.name for sample in found(tmp_path).samples] == ["a"]


def test_what_is_left_out_is_told(tmp_path):
    one(tmp_path, [shape("x", SQUARE)])
    write_image(tmp_path / "b.jpg", HEIGHT, WIDTH)
    write_image(tmp_path / "c.jpg", HEIGHT, WIDTH)
    write_json(tmp_path / "c.json", document([], "c.jpg"))
    write_json(tmp_path / "other.json", {"a": 1})
    notes = " ".join(found(tmp_path).notes)
    assert (
        "left out 1 images without a JSON file: b.jpg" in notes and "left out 1 other JSON files: other.json" in notes
    )
    assert "1 of 2 images without shapes are background only: c" in notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            document([shape("x", SQUARE)], "../../etc/passwd"),
            r"1 of 1 images are not in .* says imagePath='\.\./\.\./etc",
        ),
        (document([shape("", SQUARE)]), "shape 1 has no label"),
        (document([7]), 'has no list "shapes"'),
        (document([]), "none of the 1 JSON files has a shape with an area"),
        (document([shape("x", SQUARE, "heart")]), "none of the 1 JSON files has a shape"),
        (document([shape("x", [[1, 1], [5, 5]], "mask", mask="?!")]), "shape 1, mask: not a PNG"),
        (document([shape("x", [[1, 1], [5, 5]], "mask")]), "shape 1: its mask is not a PNG in base 64"),
        (document([shape("x", SQUARE)], "gone.jpg", imageData="AAAA"), "imageData: not a PNG, JPEG"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, content, message):
    if content["imagePath"] == "a.jpg":
        write_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    else:
        write_image(tmp_path / "other.jpg", HEIGHT, WIDTH)
    write_json(tmp_path / "a.json", content)
    with pytest.raises(ConvloraError, match=message) as caught:
        check_data(DataSettings(images=str(tmp_path), val_fraction=0, test_fraction=0))
    assert "\n" not in str(caught.value)


def test_two_files_for_one_image_and_a_single_file_are_refused(tmp_path):
    one(tmp_path, [shape("x", SQUARE)])
    write_json(tmp_path / "b.json", document([shape("x", SQUARE)]))
    with pytest.raises(PairingError, match=r"1 images have several JSON files: a\.jpg"):
        found(tmp_path)
    with pytest.raises(PairingError, match="is one file; give the folder"):
        found(tmp_path, tmp_path / "a.json", format="labelme")
    with pytest.raises(PairingError, match="has no JSON file of LabelMe"):
        write_image(tmp_path / "empty/x.jpg")
        found(tmp_path / "empty", format="labelme")


def test_a_mask_that_unpacks_to_more_than_is_allowed_is_refused(tmp_path):
    with pytest.raises(ConvloraError, match="megapixels"):
        stream = io.BytesIO()
        Image.new("1", (9000, 9000)).save(stream, "PNG")
        one(tmp_path, [shape("x", [[0, 0], [5, 5]], "mask", mask=base64.b64encode(stream.getvalue()).decode())])


FUZZED = document(
    [
        shape("a", SQUARE),
        shape("b", [[1, 1], [9, 9]], "rectangle"),
        shape("c", [[9, 9], [4, 3]], "circle"),
        shape("d", [[1, 1], [3, 3]], "mask", mask=encoded(np.eye(3) > 0)),
    ]
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_files_are_read_or_refused(tmp_path, data):
    write_image(tmp_path / "a.jpg", HEIGHT, WIDTH)
    write_json(tmp_path / "a.json", data.draw(mutations(copy.deepcopy(FUZZED))))
    try:
        masks_of(found(tmp_path, format="labelme"))
    except ConvloraError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("label", ["\ud800", "two\nlines", "x" * 100_000, 3, " "])
def test_labels_that_are_no_names_in_one_line_are_refused(tmp_path, label):
    with pytest.raises(DataError, match=r"a\.json: shape 1 has .{0,60} as its label, which is no name in one line"):
        one(tmp_path, [shape(label, SQUARE)])
