import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlora.data.labels.colour_tables import TRANSPARENT, read_colours, value_of
from convlora.data.settings import DataSettings
from convlora.errors import SettingsError
from convlora.settings import from_arguments, from_values

NAMES, COLOURS = ("background", "potted plant", "ignore"), ((0, 0, 0), (64, 128, 255), (224, 224, 192))
HEX = dict(zip(NAMES, ("#000000", "#4080ff", "#e0e0c0"), strict=True))
FORMS = {
    "names first": "".join(f"{n} {r} {g} {b}\n" for n, (r, g, b) in zip(NAMES, COLOURS, strict=True)),
    "names last, tabs": "".join(f"{r} {g} {b}\t{n}\n" for n, (r, g, b) in zip(NAMES, COLOURS, strict=True)),
    "labelmap of CVAT": "# label:color_rgb:parts:actions\n"
    + "".join(f"{n}:{r},{g},{b}::\n" for n, (r, g, b) in zip(NAMES, COLOURS, strict=True)),
    "CSV": "\ufeffname,r,g,b\r\n"
    + "".join(f"{n},{r},{g},{b}\r\n" for n, (r, g, b) in zip(NAMES, COLOURS, strict=True)),
    "CSV, other order": "id;red;green;blue;class\n"
    + "".join(f"7;{r};{g};{b};{n}\n" for n, (r, g, b) in zip(NAMES, COLOURS, strict=True)),
    "hexadecimal": "".join(f"{name} {colour}\n" for name, colour in HEX.items()),
    "JSON object": json.dumps(HEX),
    "JSON object of numbers": json.dumps(dict(zip(NAMES, COLOURS, strict=True))),
    "SuperAnnotate": json.dumps([{"id": 5, "name": n, "color": c, "attribute_groups": []} for n, c in HEX.items()]),
    "Supervisely": json.dumps({"classes": [{"title": n, "shape": "any", "color": c.upper()} for n, c in HEX.items()]}),
    "labels of CVAT": json.dumps({"labels": [{"name": n, "color": c} for n, c in HEX.items()]}),
}


def read(tmp_path, text):
    (tmp_path / "colours").write_bytes(text.encode() if isinstance(text, str) else text)
    return read_colours(str(tmp_path / "colours"))


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_say_the_same(tmp_path, form):
    table = read(tmp_path, FORMS[form])
    assert table.entries == tuple((n, value_of(*c)) for n, c in zip(NAMES, COLOURS, strict=True))


def test_names_with_colours_may_be_given_as_they_are():
    table = read_colours({"sky": "#0af", "_background_": "1, 2, 3", "glass": "Transparent", "__ignore__": "rgb(9,9,9)"})
    assert table.entries == (
        ("sky", 0x00AAFF),
        ("background", 0x010203),
        ("glass", TRANSPARENT),
        ("ignore", value_of(9, 9, 9)),
    )


def test_the_background_is_class_0_wherever_it_stands_and_several_colours_are_one_class():
    labels = read_colours({"sky": "#0000ff", "tree": "#00ff00", "background": "#ffffff", "ignore": "#808080"}).labels(
        255
    )
    assert labels.classes == ("background", "sky", "tree")
    assert labels.colours == ((255, 255, 255), (0, 0, 255), (0, 255, 0))
    assert dict(labels.table) == {0x0000FF: 1, 0x00FF00: 2, 0xFFFFFF: 0, 0x808080: 255}


def test_one_name_may_have_several_colours_but_not_the_other_way_round(tmp_path):
    labels = read(tmp_path, "background 0 0 0\nroad 1 1 1\nroad 2 2 2\n").labels(255)
    assert dict(labels.table) == {0: 0, 0x010101: 1, 0x020202: 1} and labels.colours[1] == (1, 1, 1)
    with pytest.raises(SettingsError, match=r"\(1, 1, 1\) is road and path; give it one name"):
        read(tmp_path, "road 1 1 1\npath 1 1 1\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; write a line NAME R G B"),
        (" \n", "holds no table"),
        ("# nothing\n", "comments only"),
        ("road 1 2\n", "line 1: 'road 1 2' is not NAME R G B"),
        ("road 1 2 256\n", r"colour of 'road' is '\[1, 2, 256\]', but must be '#rrggbb', three numbers from 0 to 255"),
        ("road #12345\n", "is not NAME R G B"),
        ("name,r,g,b\nroad,1,2\n", "'road,1,2' does not fit its header"),
        ("name,r,g,b\nroad,1,2,x\n", "'road,1,2,x' does not fit its header"),
        ('{"road": 7}', "colour of 'road' is '7'"),
        ('{"road": [1, 2, true]}', "colour of 'road'"),
        ('{"": "#000000"}', r"\(0, 0, 0\) has no name"),
        ("[7]", "7 has no name with a color"),
        ("[" * 10_000, "not a whole JSON file"),
        ("{", "not a whole JSON file"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ("a" + " " * 2000 + "1 2 3", "line 1 has more than 1000 characters"),
        ("a 1 2 3\n" * 200_000, "holds no table"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(SettingsError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_table_without_classes_or_with_too_many_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="0 classes beside the background"):
        read(tmp_path, "background 0 0 0\nignore 1 1 1\n").labels(255)
    with pytest.raises(SettingsError, match="255 classes beside the background"):
        read(tmp_path, "".join(f"c{i} {i} 0 1\n" for i in range(255))).labels(255)
    with pytest.raises(SettingsError, match=r"missing\.txt cannot be opened"):
        read_colours(str(tmp_path / "missing.txt"))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.text("ab,;:\t #\"'{}[]0129\n\r", max_size=60).map(str.encode))
def test_random_bytes_are_a_table_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "random"
    path.write_bytes(data)
    try:
        assert read_colours(str(path)).entries
    except SettingsError as error:
        assert "\n" not in str(error)


def test_the_command_line_takes_a_file_or_names_with_colours():
    def given(value):
        arguments = ["--images", "x", "--mask_format", "colours", "--colours", value]
        return from_arguments(DataSettings, arguments, prog="check", description="").colours

    assert given("dir/colours.txt") == "dir/colours.txt"
    assert given("car=#ff0000,sky=#0080ff") == {"car": "#ff0000", "sky": "#0080ff"}
    assert given('{"car": "#ff0000"}') == {"car": "#ff0000"}
    relative = DataSettings(images="x", mask_format="colours", colours="colours.txt").data_part()
    assert Path(relative.colours).is_absolute()
    again = from_values(DataSettings, {"images": "x", "colours": {"car": "#ff0000"}}, source="test")
    assert again.data_part().colours == {"car": "#ff0000"}
