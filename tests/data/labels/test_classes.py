from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convlora.data.findings.checking import check_data
from convlora.data.labels.classes import arrange_classes, like_model
from convlora.data.labels.colours import as_hex, choose_colours, class_colour, from_hex
from convlora.data.labels.format import LabelFormat
from convlora.data.pixels.masks import read_mask
from convlora.data.settings import DataSettings
from convlora.errors import DataError, MaskError, SettingsError
from tests.data.files import data_set

STREET = LabelFormat(
    ("background", "road", "car", "truck", "person"), colours=((0, 0, 0), *((i, i, i) for i in range(4)))
)
PATH = Path("m.png")


def arranged(labels=STREET, named=True, **values):
    return arrange_classes(labels, DataSettings(images="x", **values), named=named)


def decoded(labels, values):
    return labels.decode(np.array([values], dtype=np.int32), PATH)[0].tolist()


def test_classes_are_merged_left_out_and_ignored():
    labels, notes = arranged(class_map={"car": "vehicle", "3": "vehicle", "road": "background", "person": "ignore"})
    assert labels.classes == ("background", "vehicle")
    assert decoded(labels, [0, 1, 2, 3, 4, 255]) == [0, 0, 1, 1, 255, 255]
    assert labels.colours == ((0, 0, 0), (1, 1, 1))  # of the first of the merged ones
    assert notes == ["classes mapped (--class_map): road → background; car, truck → vehicle; person → ignore"]


def test_what_is_not_mapped_stays_and_may_be_merged_into():
    labels, _ = arranged(class_map={"truck": "car"})
    assert labels.classes == ("background", "road", "car", "person")
    assert decoded(labels, [0, 1, 2, 3, 4, 255]) == [0, 1, 2, 2, 3, 255]


def test_nothing_asked_for_changes_nothing():
    labels, notes = arranged()
    assert labels == STREET and not notes


def test_classes_of_a_source_are_selected_in_order():
    labels, notes = arranged(
        classes=["background", "car", "road"], class_map={"truck": "ignore", "person": "background"}
    )
    assert labels.classes == ("background", "car", "road") and labels.colours == ((0, 0, 0), (1, 1, 1), (0, 0, 0))
    assert decoded(labels, [0, 1, 2, 3, 4]) == [0, 2, 1, 255, 0]
    assert notes[-1] == "classes in the order of --classes: background, car, road"


@given(st.lists(st.sampled_from(["background", "ignore", "a", "b", "c", None]), min_size=5, max_size=5), st.data())
def test_every_pixel_gets_the_class_that_the_map_says(targets, data):
    class_map = {STREET.classes[i]: target for i, target in enumerate(targets) if target is not None}
    names = [STREET.classes[i] if target is None else target for i, target in enumerate(targets)]
    if not set(names) - {"background", "ignore"}:
        with pytest.raises(SettingsError, match="leaves no class beside"):
            arranged(class_map=class_map)
        return
    labels, _ = arranged(class_map=class_map)
    values = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=20))
    for value, got in zip(values, decoded(labels, values), strict=True):
        assert ("ignore" if got == 255 else labels.classes[got]) == names[value]
    again, _ = arranged(labels, classes=list(labels.classes[:1] + labels.classes[:0:-1]))
    assert [again.classes[v] for v in decoded(again, [0]) if v != 255] == [names[0]] * (names[0] != "ignore")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"class_map": {"cat": "dog"}}, r"class_map: 'cat' is not among the classes background, r.*Did you mean 'car'"),
        ({"class_map": {"9": "dog"}}, "class_map: '9' is not among"),
        ({"class_map": {"car": "a", "2": "b"}}, "class_map gives 'car' two new names"),
        ({"classes": ["background", "raod"]}, r"classes: 'raod' is not among.*Did you mean 'road'"),
        ({"classes": ["background", "car", "road"]}, r"leaves out truck, person;.*--class_map 'truck=ignore' or"),
        ({"classes": ["road", "car"]}, "must begin with background"),
        (
            {
                "classes": ["background", "car", "car"],
                "class_map": dict.fromkeys(["road", "truck", "person"], "ignore"),
            },
            "twice",
        ),
        ({"class_colours": {"bus": "#ff0000"}}, "class_colours: 'bus' is not among"),
    ],
)  # fmt: skip
def test_names_that_are_not_accounted_for_are_refused(values, message):
    with pytest.raises(SettingsError, match=message):
        arranged(**values)


def test_colours_are_chosen_by_name_else_kept_else_from_the_palette():
    labels, _ = arranged(class_colours={"car": "#10ff0A"})
    assert labels.palette[2] == (16, 255, 10) and labels.palette[1] == (0, 0, 0)
    plain, _ = arranged(LabelFormat(("background", "a", "b")), class_colours={"b": "#010203"})
    assert plain.palette == {0: (0, 0, 0), 1: class_colour(1), 2: (1, 2, 3)}
    assert choose_colours(["a", "b"], None, {}) is None
    (problem,) = DataSettings(images="x", class_colours={"leaf": "green"}).problems()
    assert problem.startswith("class_colours: leaf='green' must be '#' and six")


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_hexadecimal_colours_come_back(colour):
    assert from_hex(as_hex(colour)) == colour


def counted(folder, masks, **values):
    checked = check_data(DataSettings(**data_set(folder, masks), val_fraction=0, test_fraction=0, **values))
    return dict(zip(checked.labels.classes, checked.class_pixels, strict=True)), checked


def test_ids_without_names_are_mapped_by_number(tmp_path):
    masks = [np.uint8([[0, 1, 2], [3, 3, 255]])]
    pixels, checked = counted(tmp_path, masks, class_map={"1": "crop", "2": "crop", "3": "ignore"})
    assert pixels == {"background": 1, "crop": 2} and checked.ignored_pixels == 3
    pixels, _ = counted(tmp_path, masks, class_map={3: "weed"})  # as YAML reads a number; the others stay
    assert pixels == {"background": 1, "class 1": 1, "class 2": 1, "weed": 2}
    pixels, _ = counted(tmp_path, masks, classes=["soil", "maize", "beet", "weed"], class_map={"maize": "beet"})
    assert pixels == {"soil": 1, "beet": 2, "weed": 2}


def test_values_that_are_no_ids_are_mapped_one_by_one(tmp_path):
    masks = [np.uint8([[0, 64, 128], [200, 200, 255]])]
    pixels, checked = counted(tmp_path, masks, class_map={"64": "cell", "128": "border", "200": "background"})
    assert pixels == {"background": 3, "cell": 1, "border": 1} and checked.ignored_pixels == 1
    meanings = "background (0, 200), cell (64), border (128), ignored (255)"
    assert f"masks hold 0, 64, 128, 200, 255: read as {meanings} (--class_map)" in checked.notes
    sample = checked.splits["train"][0]
    ids = checked.labels.decode(read_mask(sample.mask), sample.mask)
    assert ids.tolist() == [[0, 1, 2], [0, 0, 255]]
    pixels, _ = counted(
        tmp_path, masks, class_map={"0": "soil", "64": "cell", "128": "cell", "200": "cell", "255": "a"}
    )
    assert pixels == {"background": 0, "soil": 1, "cell": 4, "a": 1}
    with pytest.raises(DataError, match=r"0, 64, 128, 200, which are not class ids.*map values with --class_map"):
        counted(tmp_path, masks, class_map={"64": "cell", "128": "border"})


def test_black_and_white_masks_can_be_named(tmp_path):
    pixels, _ = counted(tmp_path, [np.uint8([[0, 255, 255]])], class_map={"255": "vessel"})
    assert pixels == {"background": 1, "vessel": 2}
    pixels, _ = counted(tmp_path, [np.uint8([[0, 255, 255]])], class_map={"foreground": "vessel"})
    assert pixels == {"background": 1, "vessel": 2}


def test_a_finished_models_classes_are_found_in_another_order_or_by_its_values(tmp_path):
    model = LabelFormat(("background", "car", "road"))
    other = LabelFormat(("background", "road", "car"))
    assert decoded(like_model(other, model, "x"), [0, 1, 2]) == [0, 2, 1]
    with pytest.raises(MaskError, match=r"x has the classes background, bus, but the model has background, car, road"):
        like_model(LabelFormat(("background", "bus")), model, "x")
    settings = DataSettings(**data_set(tmp_path, [np.uint8([[0, 64, 128]])]), val_fraction=0, test_fraction=0)
    table = LabelFormat(("background", "cell"), "table", table=((0, 0), (64, 1), (128, 255)))
    checked = check_data(settings, labels=table)
    assert checked.class_pixels == (1, 1) and checked.labels == table


def test_a_class_without_a_colour_gets_none_that_another_has_chosen():
    names = ["background", "a", "b", "c"]
    first, second, third = (class_colour(i) for i in (1, 2, 3))
    assert choose_colours(names, None, {"c": as_hex(first)}) == ((0, 0, 0), class_colour(4), second, first)
    assert choose_colours(names, [None, second, None, third], {}) == ((0, 0, 0), second, class_colour(4), third)
    assert choose_colours(names, None, {"a": "#010203"}) == ((0, 0, 0), (1, 2, 3), second, third)
    assert choose_colours(names, None, {"a": "#00a040"}) == ((0, 0, 0), (0, 160, 64), second, class_colour(4))  # alike
    assert choose_colours(names, None, {}) is None
