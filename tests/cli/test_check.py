import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import assert_one_line, convlora
from tests.data.files import data_set, save
from tests.data.findings.sets import FLAWS, HELA, hela

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def spoilt(tmp_path):
    data = hela(2)
    FLAWS["equal-across-splits"](data)
    FLAWS["specks"](data)
    return data.write(tmp_path)


def test_the_embedded_set_prints_what_the_readme_shows(capsys):
    (command, shown) = re.search(r"^\$ convlora (check .*?)\n(.*?)```", README, flags=re.S | re.M).groups()
    command = command.replace("data/", f"{HELA}/").replace("'", "")
    outcome = convlora(capsys, *command.split())
    assert (outcome.code, outcome.errors, outcome.out) == (0, [], shown)


def test_each_finding_is_told_once_with_its_harm(capsys, spoilt):
    outcome = convlora(capsys, "check", spoilt)
    lines = outcome.out.splitlines()
    assert outcome.code == 0 and lines[-1] == "All images and masks can be read; 1 harmful finding."
    assert [line.split(":")[0] for line in lines[-3:-1]] == ["harmful", "hint"]
    assert outcome.out.count("so scores come out too good") == 1


def test_strict_fails_on_harmful_findings_only(capsys, spoilt, tmp_path):
    outcome = convlora(capsys, "check", spoilt, "--strict", "true")
    assert_one_line(outcome, 3, r"1 harmful finding \(--strict\), the first: 1 image is in several splits")
    data = hela(2)
    FLAWS["specks"](data)
    assert convlora(capsys, "check", data.write(tmp_path / "b"), "--strict", "true").code == 0


def test_json_is_all_that_is_printed(capsys, spoilt):
    outcome = convlora(capsys, "check", spoilt, "--json", "true")
    told = json.loads(outcome.out)
    assert told["usable"] and [finding["kind"] for finding in told["findings"]] == ["equal-across-splits", "specks"]
    assert outcome.errors == []


def test_json_of_data_that_cannot_be_used_says_why(capsys, tmp_path):
    folders = data_set(tmp_path, [np.full((6, 8), 9, dtype=np.uint8)] * 3)
    save(tmp_path / "masks/s01.png", np.zeros((5, 8), dtype=np.uint8))
    outcome = convlora(capsys, "check", folders["images"], "--masks", folders["masks"], "--json", "true")
    told = json.loads(outcome.out)
    assert outcome.code == 3 and not told["usable"] and "s01.png" in told["error"]


def test_the_page_is_named(capsys, spoilt, tmp_path):
    outcome = convlora(capsys, "check", spoilt, "--output", tmp_path / "out")
    assert outcome.out.splitlines()[-1] == f"page: {tmp_path / 'out' / 'check.html'}"
    assert (tmp_path / "out" / "check.json").is_file()
