"""Settings that the paper trained with, one YAML file a set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from convlora.data.catalog.sets import find_set
from convlora.errors import SettingsError
from convlora.training.settings import TrainSettings, from_dict

_FOLDER = Path(__file__).parents[1] / "assets" / "presets"


def preset_path(name: str) -> Path:
    """The YAML file of a set, for `--config`.

    Raises:
        SettingsError: There is no set of this name.
    """
    return _FOLDER / f"{find_set(name).name}.yaml"


def preset(name: str, **changes: Any) -> TrainSettings:
    """The settings of the paper for a set; `images` and `output` must be among the changes.

    Raises:
        SettingsError: There is no set of this name, or a change cannot be used.
    """
    path = preset_path(name)
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return from_dict({**values, **changes}, source=path.name)


def with_preset(arguments: Sequence[str]) -> list[str]:
    """Arguments of `convlora train` with `--preset NAME` as the file it stands for, before all others.

    Raises:
        SettingsError: It has no value, or there is no set of this name.
    """
    rest: list[str] = []
    files: list[str] = []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument == "--preset":
            if not queue or queue[0].startswith("-"):
                raise SettingsError("setting 'preset' has no value: give the name of a set, as in --preset polyp.")
            argument = f"--preset={queue.pop(0)}"
        flag, equals, value = argument.partition("=")
        if flag == "--preset" and equals:
            files += ["--config", str(preset_path(value))]
        else:
            rest.append(argument)
    return [*files, *rest]
