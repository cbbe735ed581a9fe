"""Run commands in this process and read what they say."""

from __future__ import annotations

import re
from dataclasses import dataclass

from convlora.cli.main import main

_BAR = re.compile(r"(image|step|it|B)/s|s/(image|step|it|B)")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    errors: list[str]
    """Lines of stderr without progress bars."""


def convlora(capsys, *arguments):
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    lines = [line for line in re.split(r"[\r\n]+", captured.err) if line.strip() and not _BAR.search(line)]
    return Outcome(code, captured.out, lines)


def snapshot(folder):
    """Every file below a folder with its bytes; None if there is no folder."""
    if not folder.exists():
        return None
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def assert_one_line(outcome, code, *pieces):
    """Exactly one line, from us, without a traceback, with all the pieces."""
    assert len(outcome.errors) == 1, outcome.errors
    (line,) = outcome.errors
    assert line.startswith("convlora: ") and "Traceback" not in line + outcome.out and "(unexpected" not in line
    for piece in pieces:
        assert re.search(piece, line), f"{piece!r} is not in {line!r}"
    assert outcome.code == code, line
