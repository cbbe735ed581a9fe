"""`convlora check`: look at the data, and say what would be trained and what looks wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from convlora.checking.settings import CheckSettings
from convlora.cli.display import counting, print_data
from convlora.cli.printing import printable
from convlora.errors import DataError
from convlora.settings import from_arguments

if TYPE_CHECKING:
    from convlora.checking.check import Check


def run(arguments: Sequence[str]) -> None:
    """Check every image and mask, and print what was found."""
    settings = from_arguments(
        CheckSettings,
        arguments,
        prog="convlora check",
        description="Decode every image and mask, and say how they would be split and read, and what looks wrong. Exit "
        "codes: 0 the data can be used; 3 they cannot or, with --strict, there is a harmful finding.",
        positional=("images",),
    )
    from convlora.checking.check import check  # here, as --help must be quick
    from convlora.data.samples import counted

    try:
        with counting("checking images") if not settings.json else nullcontext() as progress:
            found = check(settings, progress)
    except DataError as error:
        if settings.json:
            print(json.dumps({"usable": False, "error": str(error)}, indent=2))
        raise
    page = found.write(Path(settings.output)) if settings.output is not None else None
    if settings.json:
        print(json.dumps(found.as_json(), indent=2))
    else:
        _print(found)
        if page is not None:
            print(f"page: {page}")
    harmful = [finding for finding in found.data.findings if finding.harm == "harmful"]
    if settings.strict and harmful:
        sys.stdout.flush()
        raise DataError(
            f"{counted(len(harmful), 'harmful finding', 'harmful findings')} (--strict), the first: {harmful[0]}"
        )


def _print(found: Check) -> None:
    told = {str(finding) for finding in found.data.findings}
    print_data(found.data, without=told)
    for finding in found.data.findings:
        print(printable(f"{finding.harm}: {finding}"))
    harmful = sum(finding.harm == "harmful" for finding in found.data.findings)
    problems = f"{harmful} harmful {'finding' if harmful == 1 else 'findings'}"
    print(f"All images and masks can be read; {problems}." if harmful else "All images and masks are usable.")
