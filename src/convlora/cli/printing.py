"""Text that can be printed, whatever is in it."""

from __future__ import annotations


def printable(text: str) -> str:
    """The same text, on one line and without what steers a terminal: names of files hold anything."""
    return "".join(map(_shown, text)) if not text.isprintable() else text


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode()
