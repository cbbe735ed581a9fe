"""`convlora convert-masks`: predicted masks in the format of an annotation tool."""

from __future__ import annotations

from collections.abc import Sequence

from convlora.cli.display import counting
from convlora.conversion.settings import TARGETS, ConvertMasksSettings
from convlora.settings import from_arguments


def run(arguments: Sequence[str]) -> None:
    """Convert, and say what was written."""
    settings = from_arguments(
        ConvertMasksSettings,
        arguments,
        prog="convlora convert-masks",
        description="Write predicted masks in the format of an annotation tool: "
        + "; ".join(f"{name} ({files})" for name, files in TARGETS.items())
        + ".",
        positional=("masks",),
    )
    from convlora.conversion.convert import convert_folder

    with counting("converting") as progress:
        notes = convert_folder(settings, progress)
    for note in notes:
        print(f"note: {note}")
    print(f"{settings.to}: {TARGETS[settings.to]} in {settings.output}")
