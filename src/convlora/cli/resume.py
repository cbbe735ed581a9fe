"""`convlora resume`: continue where the last complete checkpoint left a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convlora.cli.display import quiet_libraries, training_display
from convlora.cli.train import finish
from convlora.settings import from_arguments


@dataclass(frozen=True, kw_only=True)
class ResumeSettings:
    """Which run to continue."""

    run: str
    """Run folder that `convlora train` wrote."""


def run(arguments: Sequence[str]) -> None:
    """Continue, then score the test images."""
    settings = from_arguments(
        ResumeSettings,
        arguments,
        prog="convlora resume",
        description="Continue an interrupted run; the result is that of a run without interruption.",
        positional=("run",),
    )
    from convlora.training.run import is_main_process, leave_process_group, resume

    quiet_libraries()
    with training_display() as display:
        folder = resume(settings.run, display)
    leave_process_group()
    if is_main_process():
        finish(folder)
