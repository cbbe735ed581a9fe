"""`convlora reproduce`: from nothing to the paper's row beside the quoted one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from convlora.cli.data import print_obtained, stages
from convlora.cli.display import print_table, quiet_libraries, training_display
from convlora.errors import SettingsError
from convlora.reproduction.settings import OWN, ReproduceSettings
from convlora.settings import from_arguments
from convlora.training.presets import preset, preset_path
from convlora.training.settings import TrainSettings, validate


def run(arguments: Sequence[str]) -> None:
    """Make the runs that are missing, and print the table."""
    mine, others = _divided(arguments)
    settings = from_arguments(
        ReproduceSettings,
        mine,
        prog="convlora reproduce",
        description="Make the paper's rows for one of its sets again: get the set, train with the paper's settings, "
        "score, and show the result beside the quoted figures. The same command continues what was interrupted. Any "
        "flag of `convlora train` (such as --model, --epochs, --batch_size) changes the paper's settings.",
        positional=("name",),
    )
    settings.validate()
    training = _training(settings, others)
    validate(training)
    from convlora.reproduction.reproduce import TABLE, Listener, reproduce
    from convlora.reproduction.table import rows

    quiet_libraries()
    with training_display() as display, stages() as progress:

        def announce(name: str) -> None:
            display.close()
            print(f"== {name}", flush=True)

        def show(stage: str, done: int, total: int) -> None:
            display.close()
            progress(stage, done, total)

        listener = Listener(progress=show, obtained=print_obtained, announce=announce, report=display)
        try:
            result = reproduce(settings, training, listener)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted. The same command continues.") from None
    print_table(rows(result))
    for line in (*result.failures, *result.remarks()):
        print(f"  {line}")
    print(f"table: {settings.folder / TABLE}")


def _training(settings: ReproduceSettings, flags: Sequence[str]) -> TrainSettings:
    """The preset with the flags of `convlora train` that were given, and with what a file among them sets."""
    for name, instead in OWN.items():
        if any(flag.partition("=")[0] == f"--{name}" for flag in flags):
            raise SettingsError(f"--{name} is set by convlora reproduce; set --{instead} instead.")
    places = {"images": str(settings.listing), "output": str(settings.folder)}
    given = [*(f"--{name}={value}" for name, value in places.items()), "--config", str(preset_path(settings.name))]
    training = from_arguments(TrainSettings, [*given, *flags], prog="convlora reproduce", description="")
    usual = preset(settings.name, **places)
    for name, instead in {**OWN, "output": "output"}.items():
        if getattr(training, name) != getattr(usual, name):
            raise SettingsError(
                f"{name} in the file of --config is set by convlora reproduce; set --{instead} instead."
            )
    return training


def _divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of a reproduction, and those of the training."""
    names = {f"--{field.name}" for field in dataclasses.fields(ReproduceSettings)}
    mine: list[str] = []
    others: list[str] = []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        name, equals, _ = argument.partition("=")
        own = not argument.startswith("--") or argument == "--help" or name in names
        chosen = mine if own else others
        chosen.append(argument)
        if argument.startswith("--") and not equals and queue and not queue[0].startswith("--"):
            chosen.append(queue.pop(0))
    return mine, others
