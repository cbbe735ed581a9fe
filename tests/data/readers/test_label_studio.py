import copy

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from convlora.data.readers.label_studio_brush import unpacked
from convlora.errors import ConvloraError, DataError, MaskError, PairingError
from tests.data.readers.drawing import found, inside, masks_of, write_image, write_json
from tests.data.readers.mutation import mutations

HEIGHT, WIDTH = 40, 50
SQUARE = {"points": [[20, 20], [60, 20], [60, 60], [20, 60]]}  # percent: rows 8..23, columns 10..29


def result(kind="polygon", label="car", value=None, **more):
    name = f"{kind}labels"
    values = (SQUARE if value is None else value) | ({name: [label]} if label else {})
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return {"id": "r1", "type": name, "from_name": "label", "to_name": "image", "value": values} | size | more


def task(number, results, image="/data/upload/1/1a2b3c4d-a.jpg", **annotation):
    made = {"id": number, "was_cancelled": False, "updated_at": "2024-05-01T10:00:00Z", "result": results}
    return {"id": number, "data": {"image": image, "note": "x"}, "annotations": [made | annotation], "predictions": []}


@pytest.fixture
def root(tmp_path):
    for name in ("1a2b3c4d-a.jpg", "b.jpg"):
        write_image(tmp_path / "images" / name, HEIGHT, WIDTH)
    return tmp_path


def of(root, *tasks, **settings):
    return found(root / "images", write_json(root / "export.json", list(tasks)), **settings)


def only(root, *results, **settings):
    return masks_of(of(root, task(1, list(results)), **settings))["1a2b3c4d-a"]


def pack(values, *, value_bits=8, lengths=(3, 4, 8, 15), equal_from=2):
    """An encoder by the format's definition, in text of 0 and 1: runs of equal values, and others one by one."""
    text = f"{len(values):032b}{value_bits - 1:05b}" + "".join(f"{n - 1:04b}" for n in lengths)
    start = 0
    while start < len(values):
        run = next((i for i in range(start, len(values)) if values[i] != values[start]), len(values)) - start
        count = min(run if run >= equal_from else 1, 2 ** lengths[3])
        kind = next(i for i, bits in enumerate(lengths) if count <= 2**bits)
        text += f"{int(run >= equal_from)}{kind:02b}{count - 1:0{lengths[kind]}b}{values[start]:0{value_bits}b}"
        start += count
    return [int(text[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(text), 8)]


def stroke():
    picture = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(picture).line([(5, 5), (40, 30)], fill=255, width=6)
    return np.asarray(picture)


def brush(mask, **options):
    rgba = np.repeat(mask[..., None], 4, axis=2) // [2, 3, 4, 1]
    return result("brush", value={"format": "rle", "rle": pack(rgba.ravel().tolist(), **options)})


def test_a_brush_mask_is_the_alpha_that_it_encodes(root):
    np.testing.assert_array_equal(only(root, brush(stroke())), stroke() > 0)
    soft = stroke() // 2 + np.where(stroke() > 0, np.arange(WIDTH, dtype=np.uint8)[None], 0)
    np.testing.assert_array_equal(only(root, brush(soft)), soft >= 128)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=80)
    | st.lists(st.sampled_from([0, 255]), max_size=80, min_size=1),
    st.tuples(*[st.integers(1, 16)] * 4).map(lambda bits: tuple(sorted(bits))).filter(lambda bits: bits[3] > 6),
    st.integers(2, 5),
)
def test_packed_values_come_back(values, lengths, equal_from):
    assert unpacked(bytes(pack(values, lengths=lengths, equal_from=equal_from)), len(values)).tolist() == values


def test_a_brush_mask_as_the_tool_itself_packs_it():
    # 3 x 2 pixels, the first and the last painted; packed by label-studio-converter 0.0.59
    packed = [0, 0, 0, 24, 57, 27, 252, 127, 247, 192, 35, 255, 0]
    assert unpacked(bytes(packed), 24).reshape(3, 2, 4)[..., 3].tolist() == [[255, 0], [0, 0], [0, 255]]


@given(st.binary(max_size=60))
def test_any_bytes_are_a_brush_mask_or_refused(packed):
    try:
        assert unpacked(packed, 16).shape == (16,)
    except MaskError as error:
        assert "brush mask" in str(error)


def test_percent_become_pixels(root):
    mask = only(root, result())
    np.testing.assert_array_equal(np.argwhere(mask)[[0, -1]], [[8, 10], [23, 29]])
    box = {"x": 20, "y": 20, "width": 40, "height": 40, "rotation": 0}
    np.testing.assert_array_equal(only(root, result("rectangle", value=box)), mask)


def test_a_rectangle_turns_clockwise_about_its_corner(root):
    box = {"x": 50, "y": 25, "width": 40, "height": 10, "rotation": 90}
    mask = only(root, result("rectangle", value=box))
    corners = [(25, 10), (25, 30), (21, 30), (21, 10)]  # 20 pixels to the right become 20 downwards, 4 down become left
    np.testing.assert_array_equal(mask, inside([corners], HEIGHT, WIDTH))


def test_an_ellipse_has_radii_in_percent_of_both_sides(root):
    mask = only(root, result("ellipse", value={"x": 50, "y": 50, "radiusX": 30, "radiusY": 25, "rotation": 0}))
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    assert ((mask == 1) ^ (((x - 25) / 15) ** 2 + ((y - 20) / 10) ** 2 <= 1)).sum() <= 2


def test_what_was_drawn_later_is_on_top_and_classes_are_in_alphabetical_order(root):
    inner = result(label="bolt", value={"points": [[30, 30], [40, 30], [40, 40], [30, 40]]}, id="r2")
    data = of(root, task(1, [result(), inner]))
    assert data.labels.classes == ("background", "bolt", "car")
    mask = masks_of(data)["1a2b3c4d-a"]
    assert (mask == 1).sum() == 20 and (mask == 2).sum() == 300
    assert not (only(root, inner, result()) == 1).any()


def test_the_newest_completed_annotation_counts(root):
    made = task(1, [result(label="old")])
    later = {"id": 2, "was_cancelled": False, "updated_at": "2024-06-01T10:00:00Z", "result": [result(label="new")]}
    skipped = {"id": 3, "was_cancelled": True, "updated_at": "2024-07-01T10:00:00Z", "result": [result(label="no")]}
    made["annotations"] = [later, made["annotations"][0], skipped]
    other = task(2, [result(label="no")], image="b.jpg", was_cancelled=True)
    data = of(root, made, other, task(3, [], image="c.jpg") | {"annotations": []})
    assert data.labels.classes == ("background", "new") and len(data.samples) == 1
    assert "left out 2 tasks of export.json without a completed annotation" in data.notes
    assert "1 tasks of export.json have several annotations: the newest counts" in data.notes
    assert "left out 1 image files that export.json does not name: b.jpg" in data.notes


def test_an_annotation_without_regions_is_background(root):
    data = of(root, task(1, [result()]), task(2, [], image="s3://bucket/b.jpg"))
    assert not masks_of(data)["b"].any() and masks_of(data)["b"].shape == (HEIGHT, WIDTH)
    assert "1 of 2 images without regions are background only: b" in data.notes


@pytest.mark.parametrize(
    "address",
    [
        "/data/local-files/?d=project%2Fimages%2Fb.jpg",
        "/data/local-files/?d=images/b.jpg&x=1",
        "http://localhost:8080/data/upload/3/0123abcd-b.jpg",
        "/data/upload/3/b.jpg",
        "s3://bucket/folder/b.jpg",
        "https://host/x/b.jpg?X-Amz-Signature=abc",
    ],
)
def test_addresses_lead_to_the_file_of_that_name(root, address):
    assert [s.image.name for s in of(root, task(1, [result()], image=address)).samples] == ["b.jpg"]


def test_label_and_outline_in_two_results(root):
    outline, label = result("polygon", label=None, type="polygon"), result("", label=None)
    label |= {"type": "labels", "value": SQUARE | {"labels": ["car"]}}
    for order in ([outline, label], [label, outline]):
        assert (only(root, *order) == 1).sum() == 320


def test_choices_are_no_regions_and_points_are_told(root):
    choice = {"id": "c", "type": "choices", "value": {"choices": ["good"]}, "from_name": "q", "to_name": "image"}
    point = result("keypoint", value={"x": 5, "y": 5, "width": 1}, id="p")
    bare = result(label=None, id="n")
    data = of(root, task(1, [result(), choice, point, bare]))
    assert "left out 2 regions: 1 with no label, 1 with points instead of an outline" in data.notes


def test_two_labels_are_two_classes_only_if_classes_may_overlap(root):
    both = result(value=SQUARE | {"polygonlabels": ["car", "red"]}, label=None)
    with pytest.raises(MaskError, match="a region has the labels car, red"):
        of(root, task(1, [both]))
    assert only(root, both, task="multilabel").max() == 3


def test_a_folder_with_export_and_images_is_recognised(root):
    write_json(root / "project.json", [task(1, [result()])])
    data = found(root)
    assert data.notes[0].startswith("read as label-studio") and len(data.samples) == 1


@pytest.mark.parametrize(
    ("tasks", "error", "message"),
    [
        ({"a": 1}, DataError, "not a list of tasks"),
        ([{"id": 1, "image": "a.jpg", "label": []}], DataError, "JSON-MIN"),
        ([task(1, [result()], image="x.jpg")], PairingError, "1 of 1 images are not in"),
        ([task(1, [result()], image="../../b.jpg.txt")], DataError, "has 0 images in its data"),
        ([task(1, [result()]), task(2, [result()])], PairingError, "1 images are there more than once"),
        ([task(1, [result(image_rotation=90)])], MaskError, "was turned in Label Studio"),
        ([task(1, [result(), result(original_width=7)])], MaskError, "differ between its regions"),
        ([task(1, [result(original_width=None)])], MaskError, "are missing"),
        ([task(1, [result("bitmask", value={})])], MaskError, "holds a bitmask region"),
        ([task(1, [result("brush", value={"rle": [1, 300]})])], MaskError, "a brush region has no bytes in rle"),
        ([task(1, [result(label=None)])], MaskError, "none of the 1 tasks has a labelled region"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(root, tasks, error, message):
    write_json(root / "export.json", tasks)
    with pytest.raises(error, match=message) as raised:
        found(root / "images", root / "export.json", format="label-studio")
    assert "\n" not in str(raised.value)


def test_damaged_brush_masks_name_file_and_image(root):
    packed = brush(stroke())["value"]["rle"]
    for bad in (packed[:-20], packed[:3], [255] * 40, []):
        data = of(root, task(1, [result("brush", value={"format": "rle", "rle": bad})]))
        with pytest.raises(MaskError, match=r"export.json, /data/upload/1/1a2b3c4d-a.jpg: a brush mask"):
            masks_of(data)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_mutated_export_is_read_or_refused_in_one_line(root, data):
    ellipse = result("ellipse", value={"x": 50, "y": 50, "radiusX": 30, "radiusY": 25, "rotation": 10}, id="e")
    good = [task(1, [result(), ellipse, brush(stroke()) | {"id": "b"}]), task(2, [], image="b.jpg")]
    good[0]["annotations"][0]["result"][2]["value"]["rle"] = [0, 0, 31, 64, 58]  # short, to be mutated often
    write_json(root / "export.json", data.draw(mutations(copy.deepcopy(good))))
    try:
        masks_of(found(root / "images", root / "export.json", format="label-studio"))
    except ConvloraError as error:
        assert "\n" not in str(error)
