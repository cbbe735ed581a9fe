"""The colours in which classes are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Colour = tuple[int, int, int]

# Okabe and Ito's palette, which colour-blind readers can tell apart; then it repeats, darker
_PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_ALIKE = 80  # levels of red, green and blue together


def class_colour(class_id: int) -> Colour:
    """RGB colour of a class from 1 on, where nobody has chosen one; the background has none, and gets black."""
    if class_id == 0:
        return 0, 0, 0
    turn, index = divmod(class_id - 1, len(_PALETTE))
    red, green, blue = (int(value * 0.7**turn) for value in _PALETTE[index])
    return red, green, blue


def as_hex(colour: Sequence[int]) -> str:
    """#rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def from_hex(text: str) -> Colour:
    """RGB of #rrggbb."""
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def choose_colours(
    classes: Sequence[str], source: Sequence[Colour | None] | None, chosen: Mapping[str, str]
) -> tuple[Colour, ...] | None:
    """RGB of each class: as chosen by its name, else as its source says, else from the palette.

    Args:
        classes: Names from class id 0 on.
        source: What the source says of each; None if it says nothing of any.
        chosen: Name → #rrggbb.

    Returns:
        None if neither says anything.
    """
    if source is None and not chosen:
        return None
    known = [
        from_hex(chosen[name]) if name in chosen else colour
        for name, colour in zip(classes, source or [None] * len(classes), strict=True)
    ]
    given = [colour for colour in known if colour is not None]
    palette = [class_colour(class_id) for class_id in range(2 * len(classes) + len(_PALETTE))]
    spare = [colour for colour in palette[len(classes) :] if not _like(colour, given)]  # for those that look like one
    return tuple(
        (spare.pop(0) if class_id and spare and _like(palette[class_id], given) else palette[class_id])
        if colour is None
        else colour
        for class_id, colour in enumerate(known)
    )


def _like(colour: Colour, others: Sequence[Colour]) -> bool:
    """Whether a colour can hardly be told from one of the others; the palette's seven are further apart."""
    return any(sum(abs(a - b) for a, b in zip(colour, other, strict=True)) < _ALIKE for other in others)
