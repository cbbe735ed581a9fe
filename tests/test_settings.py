from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from convlora.errors import SettingsError
from convlora.settings import from_arguments, from_values
from convlora.training.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A group."""

    rank: int = 3
    """Rank."""
    names: list[str] = field(default_factory=lambda: ["qkv"])
    """Names."""
    fast: bool = True
    """Speed."""
    blocks: int | list[int] | None = None
    """Blocks."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A tree."""

    images: str
    """Where images are."""
    output: str
    """Where to."""
    classes: list[str] | None = None
    """Class names."""
    overlays: bool = False
    """Draw."""
    steps: int | None = None
    """Steps."""
    rate: float = 0.1
    """Rate."""
    inner: Inner = Inner()
    """The group."""


NEEDED = ("--images", "i", "--output", "o")


def parse(*arguments, positional=()):
    return from_arguments(Settings, arguments, prog="convlora try", description="Try.", positional=positional)


def test_flags_set_fields_of_the_whole_tree():
    got = parse(*NEEDED, "--steps", "4", "--rate=1e-3", "--inner.rank", "5", "--inner.names", "a,b")
    assert got == Settings(images="i", output="o", steps=4, rate=1e-3, inner=Inner(rank=5, names=["a", "b"]))


@pytest.mark.parametrize(
    ("arguments", "classes"),
    [
        (("--classes", "a,b"), ["a", "b"]),
        (("--classes=a,b"), ["a", "b"]),
        (("--classes", "a"), ["a"]),
        (("--classes", "[a, b]"), ["a", "b"]),
        (("--classes", "background, leaf blade"), ["background", "leaf blade"]),
        (("--classes", "yes,no,1,null,c: d,#e"), ["yes", "no", "1", "null", "c: d", "#e"]),
        (("--classes", ""), []),
        (("--classes", "null"), None),
    ],
)
def test_a_list_is_written_with_commas_and_holds_only_text(arguments, classes):
    arguments = [arguments] if isinstance(arguments, str) else arguments
    assert parse(*NEEDED, *arguments).classes == classes


@pytest.mark.parametrize(("given", "blocks"), [("2", 2), ("0,3", [0, 3]), ("[1]", [1]), ("null", None)])
def test_a_number_or_a_list_of_numbers_keeps_its_type(given, blocks):
    assert parse(*NEEDED, "--inner.blocks", given).inner.blocks == blocks


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (("--overlays",), True),
        (("--overlays", "true"), True),
        (("--overlays", "false"), False),
        (("--overlays=false",), False),
        (("--overlays", "--steps", "3"), True),
        ((), False),
    ],
)
def test_a_switch_needs_no_value(arguments, value):
    assert parse(*NEEDED, *arguments).overlays is value


def test_a_nested_switch_can_be_turned_off_and_on():
    assert parse(*NEEDED, "--inner.fast", "false").inner.fast is False
    assert parse(*NEEDED, "--inner.fast").inner.fast is True


@pytest.mark.parametrize(
    "arguments",
    [
        ("a", "b", "--steps", "1"),
        ("--steps", "1", "a", "b"),
        ("a", "--steps", "1", "b"),
        ("--output", "b", "--steps", "1", "a"),
        ("--overlays", "false", "--steps=1", "a", "b", "--overlays=false"),
    ],
)
def test_places_and_flags_may_be_mixed(arguments):
    got = parse(*arguments, positional=("images", "output"))
    assert got == Settings(images="a", output="b", steps=1)


@pytest.mark.parametrize(
    "value", ["-dash", "with space", "ü", "new\nline", "a=b", "123", "yes", "[x]", "{a: 1}", "a#b"]
)
def test_a_path_is_taken_as_it_is_written(value):
    assert parse("--images", value, f"--output={value}") == Settings(images=value, output=value)


def test_flags_override_the_yaml_file(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("images: i\noutput: o\nsteps: 7\ninner:\n  rank: 5\n  names: [a]\n", encoding="utf-8")
    got = parse("--config", str(config), "--steps", "8", "--inner.rank", "6")
    assert got == Settings(images="i", output="o", steps=8, inner=Inner(rank=6, names=["a"]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*NEEDED, "--step", "1"), "unknown setting 'step'. Did you mean 'steps'?"),
        ((*NEEDED, "--stepz=1"), "unknown setting 'stepz'. Did you mean 'steps'?"),
        ((*NEEDED, "--inner.ran", "1"), "unknown setting 'inner.ran'. Did you mean 'inner.rank'?"),
        ((*NEEDED, "--rank", "1"), "unknown setting 'rank'. Did you mean 'inner.rank'?"),
        ((*NEEDED, "--xyz"), "unknown setting 'xyz'. `convlora"),
        ((*NEEDED, "-x"), "unknown setting '-x'."),
        ((*NEEDED, "stray"), "unexpected argument 'stray'"),
        ((*NEEDED, "--classes", "a", "b"), "unexpected argument 'b': nothing may be given without a --flag, and lists"),
        ((*NEEDED, "--overlays", "maybe"), "unexpected argument 'maybe'"),
        ((*NEEDED, "--steps"), "setting 'steps' has no value."),
        ((*NEEDED, "--steps", "--overlays"), "setting 'steps' has no value."),
        ((*NEEDED, "--steps", "many"), "setting 'steps' must be int | None, not many."),
        ((*NEEDED, "--inner.rank", "1.5"), "setting 'inner.rank' must be int, not 1.5."),
        ((*NEEDED, "--rate", "nan"), "setting 'rate' must be float, not nan."),
        (("--images", "i"), "the following arguments are required: output."),
        (("--images", "", "--output", "o"), "setting 'images' is empty."),
    ],
)
def test_a_wrong_argument_is_one_line_that_points_to_the_help(arguments, message):
    with pytest.raises(SettingsError) as caught:
        parse(*arguments)
    text = str(caught.value)
    assert message in text and text.endswith("`convlora try --help` lists all flags.") and "\n" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- b\n", "the file of --config holds no settings"),
        (b"hello", "the file of --config holds no settings"),
        (b"", "the file of --config holds no settings"),
        (b"images: [1\noutput: }", "Problems parsing config"),
        (bytes(range(256)), "not UTF-8 text"),
        (b"images: i\noutput: o\nstep: 1\n", "unknown setting 'step'. Did you mean 'steps'?"),
        (b"images: i\noutput: o\ninner:\n  ran: 1\n", "unknown setting 'inner.ran'. Did you mean 'inner.rank'?"),
        (b"images: i\noutput: o\nrate: null\n", "setting 'rate' must not be null"),
        (b"images: i\noutput: o\ninner: 3\n", "setting 'inner' must be"),
        (b"images: i\noutput: o\nclasses: [a, 1]\n", "setting 'classes' must be list[str] | None, not ['a', 1]"),
    ],
)
def test_a_wrong_yaml_file_is_one_clear_line(tmp_path, content, message):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        parse("--config", str(tmp_path / "c.yaml"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("images: a\nimages: b\noutput: out\n", "line 2: 'images' is given a second time"),
        ("images: a\noutput: out\nadapter:\n  r: 3\n  decoder: tuned\n  r: 4\n", "line 6: 'r' is given a second"),
    ],
)
def test_a_yaml_file_that_gives_something_twice_is_refused(tmp_path, content, message):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=message):
        from_arguments(TrainSettings, ["--config", str(path)], prog="p", description="d")


def test_a_yaml_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"config.*does not exist: '.*none\.yaml'"):
        parse("--config", str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("tag", ["object/apply:os.system", "object/new:os.system", "name:os.system"])
def test_yaml_that_names_python_objects_runs_nothing(tmp_path, tag):
    mark = tmp_path / "ran"
    (tmp_path / "c.yaml").write_text(f"images: !!python/{tag} ['touch {mark}']\noutput: o\n")
    with pytest.raises(SettingsError, match=r"could not determine a constructor for the tag.*python"):
        parse("--config", str(tmp_path / "c.yaml"))
    assert not mark.exists()


def test_help_lists_every_setting_with_its_meaning(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--help", positional=("images",))
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert "usage: convlora try [IMAGES] [--flag value ...]" in text
    for piece in ("--images", "Where images are.", "--inner.rank", "Rank.", "--config"):
        assert piece in text


def test_plain_values_make_the_same_tree():
    values = {"images": "i", "output": "o", "classes": ["a"], "rate": 1, "inner": {"rank": 4}}
    assert from_values(Settings, values, source="f") == Settings(
        images="i", output="o", classes=["a"], rate=1.0, inner=Inner(rank=4)
    )


def test_values_that_were_read_leave_nothing_to_the_next_ones():
    first = from_values(TrainSettings, {"images": "a", "output": "b", "adapter": {"r": 8}, "classes": ["x"]}, source="")
    again = from_values(TrainSettings, {"images": "a", "output": "b"}, source="")
    assert (first.adapter.r, again.adapter.r, again.classes) == (8, 3, None)
    again.adapter.target_modules.append("proj")
    assert from_values(TrainSettings, {"images": "a", "output": "b"}, source="").adapter.target_modules == ["qkv"]


def test_the_parser_of_plain_values_is_made_once(monkeypatch):
    from_values(TrainSettings, {"images": "a", "output": "b"}, source="")
    monkeypatch.setattr("convlora.settings._parser", None)
    from_values(TrainSettings, {"images": "a", "output": "b"}, source="")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": "i"}, "required: output"),
        ({"images": "i", "output": "o", "stepps": 1}, "unknown setting 'stepps'. Did you mean 'steps'?"),
        ({"images": "i", "output": "o", "inner": {"ran": 1}}, "'inner.ran'. Did you mean 'inner.rank'?"),
        ({"images": "i", "output": "o", "inner": 3}, "setting 'inner' must be a group of settings, not 3"),
        ({"images": "i", "output": "o", "inner": None}, "setting 'inner' must be a group of settings"),
        ({"images": "i", "output": "o", "inner": {"rank": None}}, "setting 'inner.rank' must not be null"),
        ({"images": 1, "output": "o"}, "setting 'images' must be str, not 1"),
        ({"images": "i", "output": "o", "steps": True}, "setting 'steps' must be int | None, not True"),
        ({"images": "i", "output": "o", "config": "/etc/passwd"}, "unknown setting 'config'"),
        ({"images": "i", "output": "o", 1: 2}, "Key must be a string"),
        ([1], "holds no settings"),
        (None, "holds no settings"),
    ],
)
def test_wrong_values_name_their_source(values, message):
    with pytest.raises(SettingsError) as caught:
        from_values(Settings, values, source="f.yaml")
    assert str(caught.value).startswith("f.yaml: ") and message in str(caught.value)
