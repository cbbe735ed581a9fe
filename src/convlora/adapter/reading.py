"""The configuration of an adapter from a file that is not trusted.

PEFT takes whatever JSON holds: a number as text, a regular expression for a name, an initialisation that changes the
base model's weights. Here each of them is refused by name, before anything is built from it.
"""

from __future__ import annotations

import json
import math
import re
import types
import typing
from pathlib import Path
from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from convlora.errors import WeightsError

NO_TARGET = "dummy-target-modules"  # PEFT's name for "adapt nothing", used by methods that only tune whole modules

_MODULE_NAME = re.compile(r"[A-Za-z0-9_.]+")
_NAMES = "is a pattern; only plain module names are accepted"


def read_config(path: Path) -> PeftConfig:
    """Read a PEFT configuration.

    Raises:
        WeightsError: Naming the key: unknown, of the wrong type, not finite, a pattern that PEFT would run as a regular
            expression, or one that changes more than the adapter.
    """
    values = read_json(path)
    kind = values.get("peft_type")
    if not isinstance(kind, str) or kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise WeightsError(f"{path}: peft_type={kind!r} is not a known method.")
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    hints = typing.get_type_hints(config_class)
    for key, value in values.items():
        if key not in config_class.__dataclass_fields__:
            raise WeightsError(f"{path}: unknown key {key!r}. Copy the adapter folder again.")
        if problem := _problem(key, value, hints[key]):
            raise WeightsError(f"{path}: {key}={value!r} {problem}.")
    try:
        return config_class(**values)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; anything else is a `WeightsError`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not readable JSON: {error}. Copy the folder again.") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path} holds {type(value).__name__}, expected an object. Copy the folder again.")
    return value


def _problem(key: str, value: Any, hint: Any) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return "is not finite"
    if key == "target_modules" and not (value in (None, NO_TARGET) or _are_names(value)):
        return _NAMES
    if key == "modules_to_save" and not (value is None or _are_names(value)):
        return _NAMES
    if key in ("layers_pattern", "exclude_modules") and value:
        return _NAMES
    if key in ("rank_pattern", "alpha_pattern") and value:
        if not isinstance(value, dict) or not all(_fits(number, int) and number > 0 for number in value.values()):
            return "must give a whole number of at least 1 for each name"
        return None if _are_names(list(value)) else _NAMES
    if key == "init_lora_weights" and not isinstance(value, bool) and value != "gaussian":
        return "would change the base weights; true, false and 'gaussian' are accepted"
    if key == "task_type" and value is not None:
        return "is a task of language models; only null is accepted"
    return None if _fits(value, hint) else "is of the wrong type"


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) and _MODULE_NAME.fullmatch(name) for name in value)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value can stand for a type as annotated; what a literal or an object may hold is not looked at."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin in (list, tuple):
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value)
    if origin is typing.Literal:
        return isinstance(value, str)
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    if hint in (str, bool, types.NoneType):
        return isinstance(value, hint)
    return isinstance(value, dict)
