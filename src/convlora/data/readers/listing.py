"""Data sets that are listed in a CSV file."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from convlora.data.pixels.decoding import IMAGE_SUFFIXES
from convlora.data.samples import SPLITS, Sample, first_few, unique_names
from convlora.data.scientific.kinds import mask_kind, volume_kind
from convlora.errors import PairingError

MASK_COLUMNS = ("mask", "label")
"""Names of the mask column; the archives of the Conv-LoRA paper say label."""


def read_listing(path: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Sample]:
    """Samples of a UTF-8 CSV file with the columns image, mask (or label) and, optionally, split and group.

    Paths are relative to the file's folder. Images of one group stay in one split. Other columns are left alone.
    Images have one of the `suffixes`, masks those of pictures; or they are volumes, stacks or outlines of
    `convlora.data.scientific`.

    Returns:
        Samples sorted by name. A name is the image's stem or, if stems repeat, its path as written.

    Raises:
        PairingError: the file or one of its rows cannot be used; the message tells of every kind of problem.
    """
    rows = _read_rows(path)
    problems = _row_problems(path.parent, rows, suffixes)
    if problems:
        raise PairingError(f"{path}: " + "; ".join(problems) + ". Correct these rows.")
    names = unique_names([Path(image) for image, *_ in rows])
    samples = [
        Sample(name, path.parent / image, path.parent / mask, split or None, group or None)
        for name, (image, mask, split, group) in zip(names, rows, strict=True)
    ]
    return sorted(samples, key=lambda sample: sample.name)


def _read_rows(path: Path) -> list[tuple[str, str, str, str]]:
    """Image, mask, split and group of each row, as written."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except OSError as error:
        raise PairingError(f"{path}: cannot be opened ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise PairingError(f"{path}: not UTF-8 text; save the table as CSV in UTF-8.") from error
    except csv.Error as error:
        raise PairingError(f"{path}: not a CSV file ({error}).") from error
    header = [column.strip().lower() for column in lines[0]] if lines else []  # a Split or Group counts, too
    columns = _columns(path, header)
    body = [(number, line) for number, line in enumerate(lines[1:], 2) if any(field.strip() for field in line)]
    if not body:
        raise PairingError(f"{path}: has no rows below its header; list one image and mask a row.")
    ragged = [number for number, line in body if len(line) != len(header)]
    if ragged:
        raise PairingError(
            f"{path}: {len(ragged)} rows do not have {len(header)} fields like the header, first row {ragged[0]}. "
            "Put quotation marks around paths with a comma."
        )
    rows = [["" if column is None else line[column].strip() for column in columns] for _, line in body]
    return [(image, mask, split, group) for image, mask, split, group in rows]


def _columns(path: Path, header: list[str]) -> tuple[int, int, int | None, int | None]:
    """Positions of the image, mask, split and group column."""
    masks = [name for name in MASK_COLUMNS if name in header]
    if "image" not in header or len(masks) != 1 or len(set(header)) < len(header):
        other = [name for mark, name in ((";", "semicolons"), ("\t", "tabs")) if len(header) == 1 and mark in header[0]]
        hint = f" It seems to be separated by {other[0]}; use commas." if other else ""
        raise PairingError(
            f"{path}: its first line is {','.join(header)!r}, but must name the columns image, mask (or label) and, "
            f"optionally, split and group, each once.{hint}"
        )
    split, group = (header.index(name) if name in header else None for name in ("split", "group"))
    return header.index("image"), header.index(masks[0]), split, group


def _is_there(path: Path) -> bool:
    return path.is_file() or volume_kind(path) is not None


def _row_problems(folder: Path, rows: list[tuple[str, str, str, str]], suffixes: Sequence[str]) -> list[str]:
    allowed = [pair for image, mask, *_ in rows for pair in ((image, suffixes), (mask, IMAGE_SUFFIXES))]
    files = [field for image, mask, *_ in rows for field in (image, mask)]
    repeated = [image for image, count in Counter(image for image, *_ in rows).items() if count > 1]
    grouped = any(group for *_, group in rows)
    found = {
        "empty image or mask fields": [
            "row with " + (image or mask or split) for image, mask, split, _ in rows if not (image and mask)
        ],
        "missing files": [name for name in dict.fromkeys(files) if name and not _is_there(folder / name)],
        f"files that are not images ({' '.join(suffixes)})": list(
            dict.fromkeys(
                name
                for name, kinds in allowed
                if name and Path(name).suffix.lower() not in kinds and mask_kind(folder / name) is None
            )
        ),
        "images that are their own mask": [image for image, mask, *_ in rows if image and image == mask],
        "images listed more than once": [image for image in repeated if image],
        f"splits other than {', '.join(SPLITS)}": sorted(
            {split for _, _, split, _ in rows if split and split not in SPLITS}
        ),
        "images without a group, where others have one": [
            image for image, *_, group in rows if image and grouped and not group
        ],
    }
    return [f"{len(items)} {what}: {first_few(items)}" for what, items in found.items() if items]
