"""From the classes of the source to those that the user wants: merged, renamed, left out, selected, in colour."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence

from convlora.data.labels.bits import IGNORED
from convlora.data.labels.colours import choose_colours
from convlora.data.labels.format import LabelFormat
from convlora.data.settings import BACKGROUND, IGNORE, DataSettings
from convlora.errors import MaskError, SettingsError


def arrange_classes(labels: LabelFormat, settings: DataSettings, *, named: bool) -> tuple[LabelFormat, list[str]]:
    """Apply `class_map`, `classes`, `task` and `class_colours` to the classes of a source, whatever its format.

    Args:
        labels: Classes of the source, and what the values of its masks mean.
        settings: Of these, `class_map` names classes of the source by name or number; of what it leaves, `classes`
            selects and orders.
        named: Whether the source itself knew the names; else `classes` has named them already.

    Returns:
        The format for the wanted classes, which reads the same masks; and notes on what was done.

    Raises:
        SettingsError: A name is unknown or not accounted for, or no class is left.
    """
    new_names, notes = _new_names(labels, settings.class_map or {})
    kept = list(dict.fromkeys(name for name in new_names if name is not None))
    if len(kept) < 2:
        raise SettingsError(f"class_map leaves no class beside {kept[0]}; keep at least one.")
    if named and settings.classes is not None:
        _check_selection(settings.classes, kept)
        notes += _selection_notes(settings.classes, kept)
        kept = list(settings.classes)
    ignored = labels.ignore_index
    class_ids = [ignored if name is None else kept.index(name) for name in new_names[1:]]  # [0] is the new background
    encoding, table = _encoding(labels, class_ids)
    arranged = dataclasses.replace(
        labels,
        classes=tuple(kept),
        colours=_colours(labels, new_names[1:], kept, settings.class_colours or {}),
        encoding=encoding,
        table=table,
    )
    if settings.task == "multilabel" and not arranged.multilabel:
        arranged = overlapping(arranged)
        notes.append("no mask holds overlapping classes; each is learned by itself all the same (--task multilabel)")
    return arranged, notes


def values_format(values: Iterable[int], settings: DataSettings) -> LabelFormat | None:
    """The format of masks whose values `class_map` lists one by one, such as 0, 64 and 128; None if it does not.

    0 is the background and `ignore_index` is ignored, unless they are listed themselves.

    Args:
        values: All values of all masks.
        settings: `class_map`, `classes` and `ignore_index`.

    Raises:
        SettingsError: No class is left, there are too many, or `class_map` names one Background or Ignore.
    """
    class_map = {str(key): name for key, name in (settings.class_map or {}).items()}
    if settings.classes is not None or not all(key.isdecimal() and len(key) <= 10 for key in class_map):
        return None
    plain = {0, settings.ignore_index} - {int(key) for key in class_map}
    listed = set(values) - plain
    if not listed or not all(str(value) in class_map for value in listed):
        return None
    for key, name in class_map.items():
        _refuse_misspelt(key, name, ())
    meanings = {int(key): name for key, name in class_map.items()}
    meanings |= {value: IGNORE if value == settings.ignore_index else BACKGROUND for value in plain}
    names = [BACKGROUND, *dict.fromkeys(name for name in meanings.values() if name not in (BACKGROUND, IGNORE))]
    if len(names) < 2:
        raise SettingsError(f"class_map leaves no class beside {BACKGROUND}; keep at least one.")
    ignore_index = max(settings.ignore_index, len(names))
    table = tuple((value, ignore_index if name == IGNORE else names.index(name)) for value, name in meanings.items())
    return LabelFormat(tuple(names), "table", ignore_index, table=table)


def overlapping(labels: LabelFormat) -> LabelFormat:
    """The same classes, for a model in which each is found by itself."""
    meanings = {value: IGNORED if c == labels.ignore_index else c for value, c in labels.mapping().items()}
    return dataclasses.replace(
        labels, encoding="table", ignore_index=IGNORED, table=tuple(meanings.items()), multilabel=True
    )


def like_model(labels: LabelFormat, model: LabelFormat, source: object) -> LabelFormat:
    """The classes of a source, which knows their names, in the order of a finished model's.

    Raises:
        MaskError: The source has a class that the model has not, or has less than one in common with it.
    """
    foreign = [name for name in labels.classes[1:] if name not in model.classes]
    if foreign or not set(labels.classes[1:]) & set(model.classes):
        raise MaskError(
            f"{source} has the classes {', '.join(labels.classes)}, but the model has {', '.join(model.classes)}. Map "
            "those that it does not know with class_map, or score it on data of the same classes."
        )
    ids = [0, *(model.classes.index(name) for name in labels.classes[1:])]
    encoding, table = _encoding(labels, ids)
    return dataclasses.replace(labels, classes=model.classes, colours=model.colours, encoding=encoding, table=table)


def _new_names(labels: LabelFormat, class_map: Mapping[str, str]) -> tuple[list[str | None], list[str]]:
    """The new background, then the new name of each class of the source, None if it is ignored; and notes."""
    targets: dict[int, str] = {}
    for key, target in class_map.items():
        class_id = _find(str(key), labels)
        if targets.setdefault(class_id, target) != target:
            raise SettingsError(f"class_map gives {labels.classes[class_id]!r} two new names; give it one.")
        _refuse_misspelt(key, target, labels.classes)
    if labels.encoding == "bits" and 0 in targets:
        raise SettingsError("class_map: where classes may overlap, the background is where none is; leave it out.")
    background = BACKGROUND if targets.get(0, BACKGROUND) != BACKGROUND else labels.classes[0]
    names: list[str | None] = [background]
    for class_id, name in enumerate(labels.classes):
        target = targets.get(class_id, background if class_id == 0 else name)
        names.append(None if target == IGNORE else background if target == BACKGROUND else target)
    by_target: dict[str, list[str]] = {}
    for class_id, target in sorted(targets.items()):
        by_target.setdefault(target, []).append(labels.classes[class_id])
    changes = "; ".join(f"{', '.join(names)} → {target}" for target, names in by_target.items())
    notes = [f"classes mapped (--class_map): {changes}"] if changes else []
    if IGNORE in labels.classes and labels.classes.index(IGNORE) not in targets:
        notes.append(f"pixels of the class {IGNORE} are ignored; to learn it, map it to another name")
    return names, notes


def _refuse_misspelt(key: str, target: str, known: Sequence[str]) -> None:
    for word in (BACKGROUND, IGNORE):
        if target != word == target.lower() and target not in known:
            raise SettingsError(f"class_map: {key}={target} would make a class of that name; write {key}={word}.")


def _find(key: str, labels: LabelFormat) -> int:
    """Class id of a class of the source by its name or, if none has it, by its number."""
    if key in labels.classes:
        return labels.classes.index(key)
    if key.isdecimal() and len(key) < 4 and int(key) < labels.num_classes:
        return int(key)
    raise SettingsError(
        f"class_map: {key!r} is not among the classes {_listed(labels.classes)}.{_near(key, labels.classes)}"
    )


def _check_selection(wanted: Sequence[str], there: Sequence[str]) -> None:
    unknown = [name for name in wanted if name not in there]
    if wanted and wanted[0] != there[0]:
        raise SettingsError(f"classes={','.join(wanted)} must begin with {there[0]}, the background.")
    if unknown:
        raise SettingsError(
            f"classes: {unknown[0]!r} is not among those of the data, {_listed(there)}.{_near(unknown[0], there)}"
        )
    if len(set(wanted)) < len(wanted):
        raise SettingsError(f"classes={','.join(wanted)} names a class twice; give each once.")
    left = [name for name in there if name not in wanted]
    if left:
        raise SettingsError(
            f"classes leaves out {_listed(left)}; list them, too, or say what their pixels are with class_map, as in "
            f"--class_map '{left[0]}={IGNORE}' or '{left[0]}={BACKGROUND}'."
        )


def _selection_notes(wanted: Sequence[str], there: Sequence[str]) -> list[str]:
    return [f"classes in the order of --classes: {_listed(wanted)}"] if list(wanted) != list(there) else []


def _encoding(labels: LabelFormat, class_ids: Sequence[int]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Encoding and table of a format in which class i of `labels` is class `class_ids[i]`, or ignored."""
    new = dict(enumerate(class_ids)) | {labels.ignore_index: labels.ignore_index}
    if all(old == class_id for old, class_id in new.items()) and not labels.table:
        return labels.encoding, labels.table
    encoding = "bits" if labels.encoding == "bits" else "table"
    return encoding, tuple((value, new[old]) for value, old in labels.mapping().items())


def _colours(
    labels: LabelFormat, new_names: Sequence[str | None], kept: Sequence[str], chosen: Mapping[str, str]
) -> tuple[tuple[int, int, int], ...] | None:
    """Of a class merged from several, the colour of the first."""
    unknown = [name for name in chosen if name not in kept]
    if unknown:
        raise SettingsError(
            f"class_colours: {unknown[0]!r} is not among the classes {_listed(kept)}.{_near(unknown[0], kept)}"
        )
    if labels.colours is None:
        return choose_colours(kept, None, chosen)
    first: dict[str | None, tuple[int, int, int]] = {}
    for name, colour in zip(new_names, labels.colours, strict=True):
        first.setdefault(name, colour)
    return choose_colours(kept, [first.get(name) for name in kept], chosen)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _near(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
