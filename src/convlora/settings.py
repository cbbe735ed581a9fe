"""A settings dataclass from flags, from YAML or from plain values: one tree, one way to read it, one kind of error."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from convlora.errors import SettingsError

T = TypeVar("T")

_BOOLEANS = ("true", "false", "yes", "no")

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # the line under each field is its help


def from_values(cls: type[T], values: Mapping[str, Any], *, source: object) -> T:
    """A settings object from plain values, as YAML or JSON gives them.

    Raises:
        SettingsError: Naming `source` and the key: unknown (with the nearest one), missing, or of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise SettingsError(f"{source}: holds no settings; it must be lines such as `name: value`.")
    parser = _values_parser(cls)  # type: ignore[arg-type]  # mypy takes a type for not hashable
    try:
        return _build(cls, parser, parser.parse_object(dict(values)))
    except SettingsError as error:
        raise SettingsError(f"{source}: {error}") from error
    except (ArgumentError, TypeError, ValueError) as error:
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
        positional: Fields that may be given without a flag, in this order.

    Raises:
        SettingsError: As `from_values`.
        SystemExit: After `--help` was printed.
    """
    places = "".join(f"[{name.upper()}] " for name in positional)
    parser = _parser(cls, prog=prog, description=description, usage=f"{prog} {places}[--flag value ...]")
    parser.add_argument("--config", action="config", help="YAML file with any of these settings; flags override it.")
    try:
        flags = _as_flags(cls, arguments, positional)
        for flag in flags:
            if flag.startswith("--config="):
                _refuse_repeated_keys(Path(flag.removeprefix("--config=")))
        return _build(cls, parser, parser.parse_args(flags))
    except UnicodeDecodeError as error:
        raise SettingsError(f"the file of --config is not UTF-8 text ({error}). Give a YAML file.") from error
    except SettingsError as error:
        raise SettingsError(f"{error} `{prog} --help` lists all flags.") from error
    except (ArgumentError, TypeError, ValueError) as error:
        raise SettingsError(f"{_explain(error, cls)} `{prog} --help` lists all flags.") from error


def _refuse_repeated_keys(path: Path) -> None:
    """Raise a `SettingsError` if a YAML file has a key twice: YAML's reader would take the last one without a word."""
    try:
        nodes = [yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)]
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return  # the parser reads it, too, and says what is wrong
    walked = set()  # an alias may even hold itself
    while nodes:
        node = nodes.pop()
        if not isinstance(node, yaml.CollectionNode) or id(node) in walked:
            continue
        walked.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            nodes += [value for _, value in node.value]
            names = [(key.tag, key.value) for key in keys]
            repeated = next((key for i, key in enumerate(keys) if names[i] in names[:i]), None)
            if repeated is not None:
                line = repeated.start_mark.line + 1
                raise SettingsError(f"{path}, line {line}: {repeated.value!r} is given a second time; give it once.")
        else:
            nodes += node.value


def _parser(cls: type, **texts: Any) -> ArgumentParser:
    # without abbreviations: --learning_rat would count as --learning_rate, and --out as --output
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, **texts)
    parser.add_class_arguments(cls, as_group=False)
    return parser


@functools.cache  # it takes 40 ms to make, and a study reads the settings of hundreds of runs
def _values_parser(cls: type) -> ArgumentParser:
    return _parser(cls, prog=cls.__name__)


def _build(cls: type[T], parser: ArgumentParser, parsed: Any) -> T:
    plain = parsed.as_dict()
    for name, kind in _fields(cls).items():
        value = _look_up(plain, name)
        if dataclasses.is_dataclass(kind) and not isinstance(value, dict):
            raise SettingsError(f"setting {name!r} must be a group of settings, not {value}.")
        if value is None and type(None) not in (kind, *typing.get_args(kind)):  # the parser lets it pass
            raise SettingsError(f"setting {name!r} must not be null.")
        if value == "":  # an unset shell variable; as a path it would be the current folder
            raise SettingsError(f"setting {name!r} is empty.")
    values = vars(parser.instantiate(parsed))
    return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})  # type: ignore[arg-type]


def _look_up(plain: Any, name: str) -> Any:
    """The value of a dotted name; None, too, below a group that is None."""
    for part in name.split("."):
        plain = plain.get(part) if isinstance(plain, dict) else None
    return plain


def _as_flags(cls: type, arguments: Sequence[str], positional: Sequence[str]) -> list[str]:
    """The arguments with each setting as one --name=value, which may then start with a dash or hold spaces."""
    fields = {"config": str, **_fields(cls)}
    flags: list[str] = []
    loose: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("-"):
            loose.append(argument)
        elif argument in ("-h", "--help", "--print_config"):
            flags.append(argument)
        elif name not in fields or not argument.startswith("--"):
            raise SettingsError(_explain_unknown(name, list(fields)))
        elif fields[name] in (bool, bool | None) and not equals:
            flags.append(f"--{name}={rest.pop(0) if rest and rest[0].lower() in _BOOLEANS else 'true'}")
        elif not equals and (not rest or rest[0].startswith("--")):
            raise SettingsError(f"setting {name!r} has no value.")
        else:
            value = value if equals else rest.pop(0)
            flags.append(f"--{name}={_as_list(value, str(fields[name]))}")
    free = [name for name in positional if not any(flag.startswith(f"--{name}=") for flag in flags)]
    if len(loose) > len(free):
        wanted = f"only {' '.join(name.upper() for name in positional)} may" if positional else "nothing may"
        raise SettingsError(
            f"unexpected argument {loose[len(free)]!r}: {wanted} be given without a --flag, and lists are written a,b."
        )
    return [*(f"--{name}={value}" for name, value in zip(free, loose, strict=False)), *flags]


def _as_list(value: str, kind: str) -> str:
    """A value for a list as it is typed, a,b, in brackets; any other value unchanged."""
    if value.startswith("[") or value == "null":
        return value
    if "list[str]" in kind:  # as JSON, because YAML would read the classes yes and 1 as no strings
        return json.dumps([item.strip() for item in value.split(",")] if value else [])
    if "dict[str, str]" in kind and ("| str" not in kind or "=#" in value) and not value.startswith("{"):  # as a=b,c=d
        pairs = [item.partition("=") for item in value.split(",")]
        if not all(equals and key.strip() for key, equals, _ in pairs):
            raise SettingsError(f"{value!r} must be pairs name=value, as in a=b,c=d.")
        if len({key.strip() for key, *_ in pairs}) < len(pairs):
            raise SettingsError(f"{value!r} gives a name twice; give it once.")
        return json.dumps({key.strip(): text.strip() for key, _, text in pairs})
    single = "int |" in kind or "| str" in kind
    return f"[{value}]" if "list[" in kind and ("," in value or not single) else value


def _explain(error: Exception, cls: type) -> str:
    text = " ".join(str(error).split())
    unknown = re.search(r"(?:Option|does not accept option) '([^']+)'", text)
    if unknown:
        group = re.match(r"Group '([^']+)'", text)
        return _explain_unknown(f"{group[1]}.{unknown[1]}" if group else unknown[1], list(_fields(cls)))
    if text.startswith("Unexpected config:"):
        return "the file of --config holds no settings; it must be YAML with lines such as `name: value`."
    wrong = re.match(r'Parser key "([^"]+)": (.+)', text)
    kind = wrong and _fields(cls).get(wrong[1])
    if not wrong or not kind:
        return text.replace("Parser key ", "setting ").rstrip(".") + "."
    given = re.search(r".*Given value: (.*)$", wrong[2]) or re.search(r"Got value: (.*)$", wrong[2])
    shown = kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
    return f"setting {wrong[1]!r} must be {shown}" + (f", not {given[1]}." if given else f": {wrong[2]}")


def _explain_unknown(name: str, names: Sequence[str]) -> str:
    last = name.rpartition(".")[2]
    near = difflib.get_close_matches(name, names, n=1) or [full for full in names if full.rpartition(".")[2] == last]
    return f"unknown setting {name!r}." + (f" Did you mean {near[0]!r}?" if near and near[0] != name else "")


def _fields(cls: type) -> dict[str, Any]:
    """Types of all settings of a tree by name, nested ones with dots."""
    hints = typing.get_type_hints(cls)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        inner = hints[field.name]
        found[field.name] = inner
        if dataclasses.is_dataclass(inner):
            found |= {f"{field.name}.{name}": kind for name, kind in _fields(typing.cast(type, inner)).items()}
    return found
