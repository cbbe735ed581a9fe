"""`convlora check`: look at the data and say what would be trained."""

from __future__ import annotations

from collections.abc import Sequence

from convlora.cli.display import counting, print_data
from convlora.data.checking import check_data
from convlora.data.settings import DataSettings
from convlora.settings import from_arguments


def run(arguments: Sequence[str]) -> None:
    """Check every image and mask, and print what was found."""
    settings = from_arguments(
        DataSettings,
        arguments,
        prog="convlora check",
        description="Decode every image and mask, and say how they would be split and read.",
    )
    with counting("checking images") as progress:
        checked = check_data(settings, progress=progress)
    print_data(checked)
    print("All images and masks are usable.")
