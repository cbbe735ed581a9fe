import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convlora.data.findings.checking import check_data
from convlora.data.settings import DataSettings
from convlora.errors import ConvloraError, DataError, MaskError, PairingError, SettingsError
from tests.data.readers.drawing import found, inside, masks_of, star, write_image

HEIGHT, WIDTH = 40, 50
LABELS = (("leaf", "#33ddff"), ("stem", "#fa3253"))


def points(ring):
    return ";".join(f"{x},{y}" for x, y in ring)


def document(images, labels=LABELS, holder="task"):
    declared = "".join(f"<label><name>{n}</name><color>{c}</color><type>any</type></label>" for n, c in labels)
    body = "".join(
        f'<image id="{i}" name="{name}" width="{WIDTH}" height="{HEIGHT}"{more}>{shapes}</image>'
        for i, (name, more, shapes) in enumerate(images)
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version><meta>'
        f"<{holder}><labels>{declared}</labels></{holder}><dumped>2026-01-01</dumped></meta>{body}</annotations>"
    )


def write(root, images, names=None, **more):
    for i, name in enumerate(names or [f"images/{image[0]}" for image in images]):
        write_image(root / name, HEIGHT, WIDTH, seed=i)
    (root / "annotations.xml").write_text(document(images, **more), encoding="utf-8")
    return root


def one(root, shapes, **more):
    return masks_of(found(write(root, [("a.jpg", "", shapes)], **more)))["a"]


def test_polygons_are_the_pixels_inside_and_z_order_decides_which_are_on_top(tmp_path):
    rng = np.random.default_rng(0)
    upper, lower = (star(rng, HEIGHT, WIDTH).round(2) for _ in range(2))
    mask = one(
        tmp_path,
        f'<polygon label="stem" z_order="2" points="{points(upper)}"/><polygon label="leaf" z_order="-1" '
        f'points="{points(lower)}"><attribute name="age">2</attribute></polygon>',
    )
    expected = np.where(inside([lower], HEIGHT, WIDTH), 1, 0)
    np.testing.assert_array_equal(mask, np.where(inside([upper], HEIGHT, WIDTH), 2, expected))


def test_boxes_and_ellipses_turn_clockwise_about_their_centre(tmp_path):
    mask = one(tmp_path, '<box label="leaf" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90.0" z_order="0"/>')
    expected = np.zeros((HEIGHT, WIDTH))
    expected[5:25, 15:25] = 1
    np.testing.assert_array_equal(mask, expected)
    mask = one(tmp_path, '<ellipse label="leaf" cx="25.0" cy="20.0" rx="15" ry="5" rotation="30" z_order="0"/>')
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    turn = np.deg2rad(30)
    along, across = (x - 25) * np.cos(turn) + (y - 20) * np.sin(turn), (y - 20) * np.cos(turn) - (x - 25) * np.sin(turn)
    exact = (along / 15) ** 2 + (across / 5) ** 2 <= 1
    assert np.count_nonzero(mask != exact) <= 4  # a polygon lies up to 1/20 pixel within the ellipse


def test_masks_are_runs_within_their_box(tmp_path):
    part = np.random.default_rng(3).random((6, 7)) > 0.5
    flat = np.concatenate([[False], part.ravel()])
    runs = np.diff(np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1], [True]])))
    rle = ", ".join(map(str, [runs[0] - 1, *runs[1:]]))
    mask = one(tmp_path, f'<mask label="stem" rle="{rle}" left="5" top="9" width="7" height="6" z_order="0"/>')
    expected = np.zeros((HEIGHT, WIDTH), dtype=int)
    expected[9:15, 5:12][part] = 2
    np.testing.assert_array_equal(mask, expected)


def test_labels_keep_their_order_and_colour_and_shapes_without_area_are_told(tmp_path):
    box = '<box label="leaf" xtl="1" ytl="1" xbr="9" ybr="9"/>'
    shapes = f'<polyline label="stem" points="1,1;9,9"/><tag label="stem"/>{box}'
    data = found(write(tmp_path, [("a.jpg", "", shapes), ("b.jpg", "", "")], holder="project"))
    assert data.labels.classes == ("background", "leaf", "stem")
    assert data.labels.colours == ((0, 0, 0), (0x33, 0xDD, 0xFF), (0xFA, 0x32, 0x53))
    assert "left out 2 shapes: 1 with no area (polyline), 1 with no area (tag)" in data.notes
    assert "1 of 2 images without shapes are background only: b" in data.notes


def test_a_label_called_background_cuts_out(tmp_path):
    shapes = "".join(
        f'<box label="{n}" xtl="{a}" ytl="{a}" xbr="{b}" ybr="{b}"/>'
        for n, a, b in (("leaf", 2, 12), ("background", 5, 8))
    )
    mask = one(tmp_path, shapes, labels=(("background", "#000000"), *LABELS))
    assert np.count_nonzero(mask == 1) == 100 - 9 and not mask[5:8, 5:8].any()


def test_subsets_are_splits_and_tell_equal_names_apart(tmp_path):
    box = '<box label="{}" xtl="0" ytl="0" xbr="50" ybr="40"/>'
    images = [("a.jpg", ' subset="Train"', box.format("leaf")), ("a.jpg", ' subset="Validation"', box.format("stem"))]
    data = found(write(tmp_path, images, ["images/Train/a.jpg", "images/Validation/a.jpg"]))
    assert [
        (s.image.parent.name, s.split, s.mask.read_mask(DataSettings(images="x").limits)[0, 0]) for s in data.samples
    ] == [
        ("Train", "train", 1),
        ("Validation", "val", 2),
    ]


def test_images_may_be_in_another_folder_than_the_file(tmp_path):
    write(tmp_path / "xml", [("a.jpg", "", '<box label="leaf" xtl="1" ytl="1" xbr="9" ybr="9"/>')])
    write_image(tmp_path / "pictures/a.jpg", HEIGHT, WIDTH)
    data = found(tmp_path / "pictures", tmp_path / "xml/annotations.xml")
    assert data.samples[0].image == tmp_path / "pictures/a.jpg"
    checked = check_data(DataSettings(images=str(tmp_path / "xml"), val_fraction=0, test_fraction=0))
    assert checked.class_pixels == (HEIGHT * WIDTH - 64, 64, 0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t.replace("<image ", "<track ").replace("</image", "</track"), DataError, 'is "CVAT for video"'),
        (lambda t: re.sub("<image.*</image>", "", t), DataError, "holds no <image>"),
        (lambda t: t.replace('name="a.jpg"', 'name="../../etc/passwd"'), PairingError, "1 of 1 images are not in"),
        (lambda t: t.replace(f'width="{WIDTH}"', 'width="1e99"'), DataError, "must be a whole number"),
        (lambda t: t.replace(f'width="{WIDTH}"', 'width="0"'), DataError, "has no name, or no size"),
        (lambda t: t.replace('xtl="1"', 'xtl="one"'), DataError, "<box> has xtl='one', which must be a number"),
        (lambda t: t.replace('xtl="1"', 'xtl="nan"'), MaskError, "none of the 1 images has shapes"),
        (lambda t: t.replace('label="leaf"', ""), DataError, "a <box> has no label"),
        (lambda t: t.replace("<annotations>", "<!DOCTYPE x><annotations>"), DataError, "declares a document type"),
        (lambda t: t[:200], DataError, "not a whole XML file"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, change, error, message):
    root = write(tmp_path, [("a.jpg", "", '<box label="leaf" xtl="1" ytl="1" xbr="9" ybr="9"/>')])
    file = root / "annotations.xml"
    file.write_text(change(file.read_text()))
    with pytest.raises(error, match=message) as caught:
        found(root, file, format="cvat")
    assert "\n" not in str(caught.value)


def test_an_absent_file_and_settings_of_mask_values_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"there is no annotations\.xml"):
        found(tmp_path, format="cvat")
    root = write(tmp_path, [("a.jpg", "", '<box label="leaf" xtl="1" ytl="1" xbr="9" ybr="9"/>')])
    with pytest.raises(SettingsError):
        found(root, mask_format="binary")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**6),
            st.sampled_from(
                ["", "-1", "nan", "1e308", '"', "<", ">", "&x;", "9" * 40, ";", ",", "é", "<box/>", "\x00"]
            ),
            st.integers(0, 12),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_mutated_files_are_read_or_refused(tmp_path, mutations):
    shapes = (
        '<polygon label="leaf" points="1,1;9,1;9,9" z_order="1"/><box label="stem" xtl="1" ytl="1" xbr="9" ybr="9"/>'
        '<ellipse label="leaf" cx="9" cy="9" rx="4" ry="3"/><mask label="stem" rle="2, 3, 4" left="1" top="1" width="3"'
        ' height="3"/>'
    )
    root = write(tmp_path, [("a.jpg", "", shapes)])
    text = (root / "annotations.xml").read_text()
    for place, new, length in mutations:
        place %= len(text)
        text = text[:place] + new + text[place + length :]
    (root / "annotations.xml").write_text(text)
    try:
        masks_of(found(root, root / "annotations.xml", format="cvat"))
    except ConvloraError as error:
        assert "\n" not in str(error)
