"""XML files from anywhere, read element by element: no document types, no entities, no deep nesting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET
from xml.parsers import expat

from convlora.errors import DataError

_DEEPEST = 32  # annotations have six levels
_CHUNK = 2**20


def elements(path: Path, root: str) -> Iterator[ET.Element]:
    """The elements directly below the outermost one, each when it is complete; so one at a time is in memory.

    Args:
        path: The file.
        root: What the outermost element must be called.

    Raises:
        DataError: It cannot be opened, is not whole XML, has a document type, or another outermost element.
    """
    reader = _Reader(path, root)
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                reader.parser.Parse(chunk, False)
                yield from reader.take()
            reader.parser.Parse(b"", True)
            yield from reader.take()
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}).") from error
    except (expat.ExpatError, ValueError, LookupError) as error:  # the others of an encoding that is not there
        raise DataError(f"{path}: not a whole XML file ({error}). Export it again.") from error


def outermost(path: Path) -> str | None:
    """Name of the outermost element; None if this is no such file."""
    reader = _Reader(path, None)
    try:
        with path.open("rb") as stream:
            reader.parser.Parse(stream.read(4096), False)
    except (OSError, DataError, expat.ExpatError, ValueError, LookupError):
        return reader.found  # what is wrong, reading it tells
    return reader.found


class _Reader:
    """Builds the elements of the second level."""

    def __init__(self, path: Path, root: str | None) -> None:
        self.path = path
        self.root = root
        self.found: str | None = None
        """Name of the outermost element."""
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self._depth = 0
        self._builder = ET.TreeBuilder()
        self._done: list[ET.Element] = []

    def take(self) -> list[ET.Element]:
        """The elements that became complete since the last time."""
        done, self._done = self._done, []
        return done

    def _refuse(self, name: str, *_: Any) -> None:
        self.found = name  # a document type is called like the outermost element
        raise DataError(
            f"{self.path}: declares a document type or entities, which annotations need not. Export it again."
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._depth == 0:
            self.found = name
            if self.root is not None and name != self.root:
                raise DataError(f"{self.path}: its outermost element is {name!r}, not {self.root!r}.")
        elif self._depth > _DEEPEST:
            raise DataError(f"{self.path}: nested more than {_DEEPEST} levels deep. Export it again.")
        else:
            self._builder.start(name, attributes)
        self._depth += 1

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._depth > 0:
            self._builder.end(name)
        if self._depth == 1:
            self._done.append(self._builder.close())
            self._builder = ET.TreeBuilder()

    def _text(self, text: str) -> None:
        if self._depth > 1:
            self._builder.data(text)
