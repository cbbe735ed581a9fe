"""Find out what the values of masks mean, and say so; never guess in silence."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from convlora.data.labels.format import FOREGROUND, REMEDY, LabelFormat, share, value_list
from convlora.data.settings import MASK_FORMATS
from convlora.data.sources import MaskSource, file_of
from convlora.errors import MaskError, SettingsError

MOST_DETECTED = 32
"""More classes than this are believed only if they are listed."""

Histograms = Mapping[MaskSource, Mapping[int, int]]
"""Pixels by value, by mask."""


def detect_labels(
    histograms: Histograms, *, classes: Sequence[str] | None, mask_format: str, ignore_index: int
) -> tuple[LabelFormat, list[str]]:
    """The meaning of mask values, from the values found in all masks and from what the user said.

    Args:
        histograms: Number of pixels by value, for each mask.
        classes: Names from id 0 on, or None to read their number off the masks.
        mask_format: "auto", "ids" or "binary".
        ignore_index: Value of ignored pixels.

    Returns:
        The format, and notes to the user on what was concluded.

    Raises:
        MaskError: the values fit no format, or more than one.
        SettingsError: the settings contradict each other.
    """
    if mask_format not in MASK_FORMATS:
        raise SettingsError(f"mask_format={mask_format!r} must be one of {', '.join(MASK_FORMATS)}.")
    if not histograms:
        raise MaskError("there is no mask to read the classes off.")
    _refuse_smeared_jpegs(histograms)
    values = set[int]().union(*histograms.values())
    encoding = mask_format if mask_format != "auto" else _detect_encoding(histograms, values, classes, ignore_index)
    if classes is None:
        found = values - {ignore_index}
        if encoding == "ids":
            _require_plausible_ids(histograms, found, trusted=mask_format == "ids")
        classes = _default_names(2 if encoding == "binary" else max(found | {1}) + 1)
    labels = LabelFormat(tuple(classes), encoding, ignore_index)
    refuse_unknown_values(histograms, labels)
    return labels, _notes(histograms, values, labels)


def _detect_encoding(
    histograms: Histograms, values: Collection[int], classes: Sequence[str] | None, ignore_index: int
) -> str:
    known = set(values) - ({ignore_index} - {FOREGROUND})
    if classes is not None and len(classes) != 2:
        return "ids"
    if FOREGROUND in known and known <= {0, FOREGROUND}:
        return "binary"
    if known == {0, 1, FOREGROUND} and ignore_index == FOREGROUND:
        ones = [path for path, counts in histograms.items() if 1 in counts]
        whites = [path for path, counts in histograms.items() if FOREGROUND in counts]
        if not set(ones) & set(whites):
            raise MaskError(
                f"{len(ones)} masks use 1, such as {ones[0]}, and {len(whites)} others use 255, such as {whites[0]}: "
                "two formats of foreground are mixed. Convert one of them or, if 255 marks ignored pixels, "
                "say --mask_format ids."
            )
    return "ids"


def _default_names(count: int) -> list[str]:
    if count == 2:
        return ["background", "foreground"]
    return ["background", *(f"class {i}" for i in range(1, count))]


def _require_plausible_ids(histograms: Histograms, found: set[int], *, trusted: bool) -> None:
    """Refuse values that do not look like class ids 0..K-1; `trusted` if the user said that they are."""
    count = max(found | {1}) + 1
    in_range = min(found | {0}) >= 0 and count <= 255
    if in_range and (trusted or (count <= MOST_DETECTED and 2 * len(found | {0}) >= count)):
        return
    oddest = min(found) if min(found) < 0 else max(found)
    first = next(mask for mask, values in histograms.items() if oddest in values)
    raise MaskError(
        f"masks hold the values {value_list(found)}, which are not class ids 0, 1, 2 …{_smear_hint(found)} "
        f"({oddest} is in {first}). {REMEDY}."
    )


def refuse_unknown_values(histograms: Histograms, labels: LabelFormat) -> None:
    """Raise a `MaskError` if a mask holds a value that has no meaning; it names all of them and counts the pixels."""
    every = set[int]().union(*histograms.values())
    unknown = {value for value in every if labels.meaning(value) is None}
    bad = {path: counts.keys() & unknown for path, counts in histograms.items() if counts.keys() & unknown}
    if not bad:
        return
    values = set[int]().union(*bad.values())
    affected = sum(histograms[path][value] for path, found in bad.items() for value in found)
    total = sum(sum(counts.values()) for counts in histograms.values())
    raise MaskError(
        f"{next(iter(bad))}: values {value_list(values)} in {len(bad)} of {len(histograms)} masks are not among "
        f"{labels.allowed()}; {share(affected, total)} affected{_smear_hint(every)}. {REMEDY}."
    )


def _refuse_smeared_jpegs(histograms: Histograms) -> None:
    smeared = [
        path
        for path, counts in histograms.items()
        if file_of(path).suffix.lower() in (".jpg", ".jpeg")
        and not (counts.keys() <= {0, 1} or counts.keys() <= {0, 255})
    ]
    if smeared:
        raise MaskError(
            f"{smeared[0]}: JPEG has smeared the values of this mask: {value_list(histograms[smeared[0]])}; "
            f"{len(smeared)} of {len(histograms)} masks are like it. Save masks as PNG from their source, "
            "or threshold black-and-white ones at 128."
        )


def _smear_hint(values: Collection[int]) -> str:
    near_ends = all(min(value, 255 - value) <= 16 for value in values) and max(values) > 128
    if len(values) > 16 or (len(values) > 2 and near_ends):
        return "; they look smeared by lossy compression or by smooth resizing, so threshold or export them again"
    return ""


def _notes(histograms: Histograms, values: Collection[int], labels: LabelFormat) -> list[str]:
    if labels.encoding == "binary":
        notes = [f"masks hold {value_list(values)}: read 0 as background and 255 as foreground (--mask_format binary)"]
    elif set(values) == {0}:
        notes = ["every mask is 0 throughout: read as background only"]
    else:
        notes = [f"masks hold {value_list(values)}: read as ids of {labels.num_classes} classes (--mask_format ids)"]
    ignored = labels.ignore_index
    if labels.mapping()[ignored] == ignored and ignored in values:
        counts = [counts[ignored] for counts in histograms.values() if ignored in counts]
        notes.append(f"{ignored} is ignored (--ignore_index): {sum(counts)} pixels in {len(counts)} masks")
    return notes
