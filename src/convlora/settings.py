"""A settings dataclass from flags, from YAML or from plain values: one tree, one way to read it, one kind of error."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from convlora.errors import SettingsError

T = TypeVar("T")

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the line under each field is its help


def from_values(cls: type[T], values: Mapping[str, Any], *, source: object) -> T:
    """A settings object from plain values, as YAML or JSON gives them.

    Raises:
        SettingsError: Naming `source` and the key: unknown (with the nearest one), missing, or of the wrong type.
    """
    parser = _parser(cls, prog=cls.__name__)
    try:
        return _build(cls, parser, parser.parse_object(dict(values)))
    except (ArgumentError, TypeError) as error:
        raise SettingsError(f"{source}: {_explain(error, cls)}") from error


def from_arguments(
    cls: type[T], arguments: Sequence[str], *, prog: str, description: str, positional: Sequence[str] = ()
) -> T:
    """A settings object from a command's arguments; `--config FILE` reads YAML, flags override it.

    Args:
        cls: The dataclass.
        arguments: Without the command's name.
        prog: The command's name, for its help.
        description: First lines of the help.
        positional: Fields that may be given without a flag, in this order, before all flags.

    Raises:
        SettingsError: As `from_values`.
        SystemExit: After `--help` was printed.
    """
    places = " ".join(f"[{name.upper()}]" for name in positional)
    parser = _parser(cls, prog=prog, description=description, usage=f"{prog} {places} [--flag value ...]")
    try:
        return _build(cls, parser, parser.parse_args(_as_flags(cls, arguments, positional)))
    except (ArgumentError, TypeError) as error:
        raise SettingsError(f"{_explain(error, cls)} `{prog} --help` lists all flags.") from error


def _parser(cls: type, **texts: Any) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, **texts)
    parser.add_argument("--config", action="config", help="YAML file with any of these settings; flags override it.")
    parser.add_class_arguments(cls, as_group=False)
    return parser


def _build(cls: type[T], parser: ArgumentParser, parsed: Any) -> T:
    values = vars(parser.instantiate(parsed))
    return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})  # type: ignore[arg-type]


def _as_flags(cls: type, arguments: Sequence[str], positional: Sequence[str]) -> list[str]:
    flags: list[str] = []
    rest = list(arguments)
    for name in positional:
        if not rest or rest[0].startswith("-"):
            break
        flags += [f"--{name}", rest.pop(0)]
    hints = typing.get_type_hints(cls)
    lists = {f"--{f.name}" for f in dataclasses.fields(cls) if "list[" in str(hints[f.name])}
    switches = {f"--{f.name}" for f in dataclasses.fields(cls) if hints[f.name] is bool}
    for i, argument in enumerate(rest):
        if i and rest[i - 1] in lists and not argument.startswith("["):
            argument = f"[{argument}]"  # --classes background,leaf
        flags.append(argument)
        if argument in switches and (i + 1 == len(rest) or rest[i + 1].startswith("-")):
            flags.append("true")  # --overlays
    return flags


def _explain(error: Exception, cls: type) -> str:
    text = " ".join(str(error).split())
    unknown = re.search(r"unrecognized arguments: (?:--)?(\S+)", text) or re.search(
        r"(?:Option|does not accept option) '([^']+)'", text
    )
    if not unknown:
        return text.replace("Parser key ", "setting ").rstrip(".") + "."
    name = unknown[1].partition("=")[0]
    near = difflib.get_close_matches(name, names := _names(cls), n=1) or [
        full for full in names if full.rpartition(".")[2] == name.rpartition(".")[2]
    ]
    return f"unknown setting {name!r}." + (f" Did you mean {near[0]!r}?" if near else "")


def _names(cls: type) -> list[str]:
    """All settings of a tree, nested ones with dots."""
    hints = typing.get_type_hints(cls)
    names: list[str] = []
    for field in dataclasses.fields(cls):
        inner = hints[field.name]
        names.append(field.name)
        if dataclasses.is_dataclass(inner):
            names += [f"{field.name}.{name}" for name in _names(typing.cast(type, inner))]
    return names
