"""Tables that say which colour stands for which class, in the forms in which annotation tools write them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convlora.data.labels.format import LabelFormat
from convlora.data.settings import BACKGROUND, IGNORE
from convlora.errors import SettingsError

TRANSPARENT = 2**24
"""Value of fully transparent pixels, beyond all colours."""
UNSURE = 2**24 + 1
"""Value of pixels whose colour is between those of the table."""
_LARGEST_FILE = 1_000_000  # bytes; a table of 254 classes has a few thousand
_BACKGROUNDS = ("background", "_background_")
_IGNORED = ("ignore", "__ignore__")
_NAME_KEYS, _COLOUR_KEYS = ("name", "title", "label"), ("color", "colour")
_HEADER = {
    **dict.fromkeys(("name", "class", "class_name", "label"), "name"),
    **{"r": "r", "red": "r", "g": "g", "green": "g", "b": "b", "blue": "b"},
}
_LONGEST_LINE = 1000
_HEX = re.compile(r"#([0-9a-fA-F]{6})(?:[fF]{2})?|#([0-9a-fA-F]{3})")  # some tools write an opaque alpha behind


@dataclass(frozen=True)
class ColourTable:
    """Names and the values of their colours, see `value_of`; a name may have several."""

    source: str
    entries: tuple[tuple[str, int], ...]
    """In the order of the table, each value once."""

    def labels(self, ignore_index: int, *, unsure: bool = False) -> LabelFormat:
        """The classes; `background` is the first if it is there, and is put first if it is not; `ignore` is ignored.

        Args:
            ignore_index: Of the format.
            unsure: Whether masks may hold `UNSURE`, too.

        Raises:
            SettingsError: There are none, or too many.
        """
        names = list(dict.fromkeys(name for name, _ in self.entries))
        classes = [BACKGROUND, *(name for name in names if name not in (BACKGROUND, IGNORE))]
        if not 2 <= len(classes) <= 255:
            raise SettingsError(f"{self.source} has {len(classes) - 1} classes beside the background; 1 to 254 can be.")
        first = dict(reversed(self.entries))  # of several colours the first
        table = tuple((v, ignore_index if name == IGNORE else classes.index(name)) for name, v in self.entries)
        table += ((UNSURE, ignore_index),) if unsure else ()
        drawn = tuple(rgb(first.get(name, 0) % TRANSPARENT) for name in classes)
        return LabelFormat(tuple(classes), "table", ignore_index, table=table, colours=drawn)


def value_of(red: int, green: int, blue: int) -> int:
    """A colour as a whole number of 24 bits."""
    return red << 16 | green << 8 | blue


def rgb(value: int) -> tuple[int, int, int]:
    """The colour that `value_of` made a number."""
    return value >> 16, value >> 8 & 255, value & 255


def colour_text(value: int) -> str:
    """A colour's value for a message."""
    return "transparent" if value == TRANSPARENT else str(rgb(value))


def read_colours(given: str | Mapping[str, str]) -> ColourTable:
    """A table from a file (see docs/colour-and-pattern-masks.md) or, as YAML has it, from names with colours.

    Raises:
        SettingsError: The file cannot be read, a line says no colour, or a colour has two names.
    """
    if not isinstance(given, str):
        return _table("the settings", given.items())
    path = Path(given)
    try:
        data = path.read_bytes() if path.stat().st_size <= _LARGEST_FILE else b""
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"colours: {path} cannot be opened ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"colours: {path} is not UTF-8 text; give a table of names and colours.") from error
    if not text.strip():
        what = "is empty" if not data and not path.stat().st_size else "holds no table"
        raise SettingsError(f"colours: {path} {what}; write a line NAME R G B for each class.")
    return _table(str(path), _from_json(path, text) if text.lstrip()[0] in "[{" else _from_lines(path, text))


def _table(source: str, pairs: Iterable[tuple[str, Any]]) -> ColourTable:
    meanings: dict[int, str] = {}
    for raw, colour in pairs:
        name, value = _name(raw), _value(source, raw, colour)
        if not name:
            raise SettingsError(f"{source}: {colour_text(value)} has no name; give it one.")
        if meanings.setdefault(value, name) != name:
            raise SettingsError(f"{source}: {colour_text(value)} is {meanings[value]} and {name}; give it one name.")
    if not meanings:
        raise SettingsError(f"{source}: names no colours; write a line NAME R G B for each class.")
    return ColourTable(source, tuple((name, value) for value, name in meanings.items()))


def _name(raw: str) -> str:
    name = raw.strip()
    return BACKGROUND if name.lower() in _BACKGROUNDS else IGNORE if name.lower() in _IGNORED else name


def _value(source: str, name: str, colour: Any) -> int:
    numbers: Any = colour
    if isinstance(colour, str):
        text = colour.strip()
        if text.lower() == "transparent":
            return TRANSPARENT
        if digits := _HEX.fullmatch(text):
            return int(digits[1] or "".join(digit * 2 for digit in digits[2]), 16)
        numbers = _numbers(_fields(text.removeprefix("rgb(").removesuffix(")")))
    if isinstance(numbers, list | tuple) and len(numbers) == 3:
        levels = [number for number in numbers if type(number) is int and 0 <= number <= 255]
        if len(levels) == 3:
            return value_of(*levels)
    raise SettingsError(
        f"{source}: the colour of {name!r} is {str(colour)[:60]!r}, but must be '#rrggbb', three numbers from 0 to "
        "255, or transparent."
    )


def _from_json(path: Path, text: str) -> list[tuple[str, Any]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"colours: {path} is not a whole JSON file ({error}).") from error
    if isinstance(content, dict):
        lists = [content[key] for key in ("classes", "labels") if isinstance(content.get(key), list)]
        if not lists:
            return [(str(name), colour) for name, colour in content.items()]
        content = lists[0]
    entries = []
    for item in content:
        names = [item[key] for key in _NAME_KEYS if key in item] if isinstance(item, dict) else []
        colours = [item[key] for key in _COLOUR_KEYS if key in item] if isinstance(item, dict) else []
        if not names or not colours or not isinstance(names[0], str):
            raise SettingsError(f"colours: {path}: {str(item)[:60]} has no name with a color.")
        entries.append((names[0], colours[0]))
    return entries


def _from_lines(path: Path, text: str) -> list[tuple[str, Any]]:
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1)]
    lines = [(n, line) for n, line in lines if line and not line.startswith("#")]
    if not lines:
        raise SettingsError(f"colours: {path} has comments only; write a line NAME R G B for each class.")
    if longest := next((n for n, line in lines if len(line) > _LONGEST_LINE), None):
        raise SettingsError(f"colours: {path}, line {longest} has more than {_LONGEST_LINE} characters: not a table.")
    mark = next((mark for mark in ",;\t" if mark in lines[0][1]), " ")
    rows = [[field.strip() for field in row] for row in csv.reader([line for _, line in lines], delimiter=mark)]
    columns = [_HEADER.get(column.lower()) for column in rows[0]]
    if {"name", "r", "g", "b"} <= set(columns):
        return [_from_row(path, row, columns) for row in rows[1:]]
    entries: list[tuple[str, Any]] = []
    for n, line in lines:
        entry = _entry(line)
        if entry is None:
            raise SettingsError(f"colours: {path}, line {n}: {line[:60]!r} is not NAME R G B or NAME #rrggbb.")
        entries.append(entry)
    return entries


def _entry(line: str) -> tuple[str, Any] | None:
    """Name and colour of a line: NAME:R,G,B:…:…, NAME #rrggbb, NAME R G B or R G B NAME."""
    name, _, rest = line.partition(":")
    if rest and (numbers := _numbers(_fields(rest.partition(":")[0]))):
        return name, numbers
    words = _fields(line)
    if len(words) > 1 and (_HEX.fullmatch(words[-1]) or words[-1].lower() == "transparent"):
        return " ".join(words[:-1]), words[-1]
    if len(words) > 3 and (numbers := _numbers(words[-3:])):
        return " ".join(words[:-3]), numbers
    if len(words) > 3 and (numbers := _numbers(words[:3])):
        return " ".join(words[3:]), numbers
    return None


def _numbers(words: Sequence[str]) -> list[int] | None:
    """Three numbers of up to three digits each; None if they are others."""
    plain = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) <= 3]
    return plain if len(plain) == len(words) == 3 else None


def _from_row(path: Path, row: list[str], columns: list[str | None]) -> tuple[str, Any]:
    try:
        values = {column: row[i] for i, column in enumerate(columns) if column}
        return values["name"], [int(values[channel]) for channel in "rgb"]
    except (IndexError, ValueError) as error:
        raise SettingsError(f"colours: {path}: {','.join(row)[:60]!r} does not fit its header.") from error


def _fields(line: str) -> list[str]:
    mark = next((mark for mark in ",;" if mark in line), None)
    fields = next(csv.reader([line], delimiter=mark), []) if mark else line.split()
    return [field.strip() for field in fields]
