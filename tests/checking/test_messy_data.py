"""docs/messy-data.md shows what each mistake prints."""

import re
from pathlib import Path

import pytest

from tests.checking.mistakes import MISTAKES, write
from tests.cli.commands import convlora
from tests.data.findings.sets import FLAWS, findings_with

PAGE = (Path(__file__).parents[2] / "docs" / "messy-data.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^\*\*[^*]+\*\* \(`([\w-]+)`\).*?```text\n(.*?)\n```", PAGE, flags=re.S | re.M))


def test_every_mistake_is_on_the_page():
    assert list(BLOCKS) == [mistake.__name__.replace("_", "-") for mistake in MISTAKES] + list(FLAWS)
    assert len(BLOCKS) == PAGE.count("```text")


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_what_stops_a_check_is_shown_as_it_is_printed(capsys, tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, mistake)
    outcome = convlora(capsys, "check", "images", "--masks", "masks")
    assert outcome.code == 3 and outcome.errors == [BLOCKS[mistake.__name__.replace("_", "-")]]


@pytest.mark.parametrize("kind", FLAWS)
def test_a_finding_is_shown_as_it_is_printed(kind):
    (finding,) = findings_with(kind)
    assert f"{finding.harm}: {finding}" == BLOCKS[kind]
