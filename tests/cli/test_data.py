import pytest

from convlora.data.catalog.sets import SETS
from tests.cli.commands import assert_one_line, convlora
from tests.data.catalog.archives import members, write_zip
from tests.training.runs import write_checkpoint


def test_the_sets_are_listed(capsys):
    outcome = convlora(capsys, "data", "list")
    assert outcome.code == 0 and all(f"{name} " in outcome.out for name in SETS) and "not ours" in outcome.out


def test_help_tells_of_both_actions_and_of_the_flags(capsys):
    assert "data get NAME" in convlora(capsys, "data", "--help").out
    assert "--sha256" in convlora(capsys, "data", "get", "--help").out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "convlora data : give `get NAME` or `list`"),
        (["fetch", "polyp"], 2, "convlora data fetch: give `get NAME` or `list`"),
        (["get"], 2, "name"),
        (["get", "polip"], 2, "there is no set 'polip'.*Did you mean 'polyp'"),
        (["get", "polyp", "--archive", "none.zip"], 3, "none.zip is no file"),
        (["get", "trans10k", "--output", "none"], 3, "cannot be downloaded by this program: fetch Trans10K-v2"),
    ],
)
def test_wrong_arguments_are_told(capsys, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    assert_one_line(convlora(capsys, "data", *arguments), code, message)
    assert list(tmp_path.iterdir()) == []


def test_the_command_that_is_named_next_trains_and_each_test_set_can_be_evaluated(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "sam")
    write_zip(tmp_path / "given.zip", members("polyp"))
    outcome = convlora(capsys, "data", "get", "polyp", "--archive", "given.zip")
    assert (outcome.code, outcome.errors) == (0, []) and "this one was trusted and recorded" in outcome.out
    again = convlora(capsys, "data", "get", "polyp", "--archive", "given.zip").out
    assert "was there already" in again and "trusted" not in again
    (command,) = [line.removeprefix("next: convlora ") for line in again.splitlines() if line.startswith("next: ")]
    quick = ["--model", "sam", "--max_steps", "1", "--device", "cpu", "--precision", "fp32", "--method", "decoder"]
    trained = convlora(capsys, *command.split(), *quick)
    assert (trained.code, trained.errors) == (0, [])
    for test in SETS["polyp"].tests:
        scored = convlora(capsys, "evaluate", "runs/polyp", "--images", f"data/polyp/{test.csv}", "--device", "cpu")
        assert (scored.code, scored.errors) == (0, []) and "s_measure" in scored.out
