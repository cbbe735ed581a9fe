"""From an unpacked archive to files that `convlora train` and `convlora evaluate` read."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convlora.data.catalog.fetching import Progress, Record
from convlora.data.catalog.repairing import Repaired, repair_masks
from convlora.data.catalog.sets import PaperSet
from convlora.data.catalog.settings import LISTING
from convlora.data.readers.listing import read_listing
from convlora.data.samples import SPLITS, Sample, first_few
from convlora.data.sources import file_of
from convlora.errors import DataError, PairingError
from convlora.files import write_json, write_text

SOURCE = "SOURCE.md"
RECORD = "layout.json"
REPAIRED = "masks-repaired"
LISTING_OF_ARCHIVE = "train.csv"
"""File by which the folder with the data is found in a released archive."""

_TRANS10K_FOLDERS = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Layout:
    """What a folder holds.

    Attributes:
        counts: Images by split, and by test set.
        notes: What the user should know.
    """

    counts: dict[str, int]
    notes: list[str]

    @classmethod
    def read(cls, folder: Path) -> Layout | None:
        """What `lay_out` left in a folder; None if it did not make it.

        Raises:
            DataError: The file is damaged.
        """
        path = folder / RECORD
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path} is not readable ({error}). Remove {folder} to make it anew.") from error


def lay_out(entry: PaperSet, folder: Path, record: Record, progress: Progress) -> Layout:
    """Write samples.csv, one CSV file a test set, SOURCE.md and layout.json into the folder of an unpacked archive.

    Raises:
        DataError: The archive does not hold what it should.
    """
    _require_free_names(entry, folder)
    parts = _listed(entry, folder) if entry.archive else _by_folder(folder)
    for name in (*(f"{split}.csv" for split in SPLITS), *(test.csv for test in entry.tests)):
        (folder / name).unlink(missing_ok=True)  # the archive's own; ours follow
    chosen = _one_split_each(parts)
    samples = [sample for part in chosen.values() for sample in part]
    repaired = repair_masks(samples, folder / REPAIRED, binary=entry.binary, progress=progress)
    masks = dict(zip((sample.image for sample in samples), repaired.masks, strict=True))
    rows = [
        (file_of(sample.image), masks[sample.image], "test" if name not in SPLITS else name)
        for name, part in chosen.items()
        for sample in part
    ]
    _write_csv(folder / LISTING, ("image", "mask", "split"), folder, rows)
    for test in entry.tests:
        own = [(file_of(sample.image), masks[sample.image]) for sample in chosen[_key(entry, test.name)]]
        _write_csv(folder / test.csv, ("image", "mask"), folder, own)
    counts = {name: len(part) for name, part in chosen.items()}
    layout = Layout(counts, _notes(entry, parts, chosen, repaired))
    write_text(folder / SOURCE, _source(entry, record, layout))
    write_json(folder / RECORD, dataclasses.asdict(layout))
    return layout


def _require_free_names(entry: PaperSet, folder: Path) -> None:
    """Refuse an archive with a folder where a file of ours comes, or with anything where the repaired masks come."""
    files = (LISTING, SOURCE, RECORD, *(f"{split}.csv" for split in SPLITS), *(test.csv for test in entry.tests))
    taken = [name for name in files if (folder / name).is_dir()]
    if (folder / REPAIRED).exists():
        taken.append(REPAIRED)
    if taken:
        raise DataError(
            f"the archive of {entry.name} holds {', '.join(taken)}, where this program writes a file or folder of its "
            "own. Rename it in the archive."
        )


def _key(entry: PaperSet, test: str) -> str:
    """Name of a test set's part: just test if it is the only one."""
    return "test" if len(entry.tests) == 1 else f"test {test}"


def _listed(entry: PaperSet, folder: Path) -> dict[str, list[Sample]]:
    """The samples of each CSV file of a released archive: train, val, and each test set."""
    files = {"train": "train.csv", "val": "val.csv"} | {_key(entry, test.name): test.csv for test in entry.tests}
    missing = [name for name in files.values() if not (folder / name).is_file()]
    if missing:
        raise DataError(f"the archive of {entry.name} holds no {', '.join(missing)} beside {LISTING_OF_ARCHIVE}.")
    try:
        parts = {part: read_listing(folder / name) for part, name in files.items()}
    except PairingError as error:
        raise DataError(f"the archive of {entry.name}: {str(error).replace(f'{folder}/', '')}") from error
    paths = [file_of(s) for part in parts.values() for sample in part for s in (sample.image, sample.required_mask())]
    outside = [str(path) for path in paths if not path.is_relative_to(folder) or ".." in path.parts]
    if outside:
        raise DataError(f"the archive of {entry.name} lists {len(outside)} files outside it: {first_few(outside)}.")
    return parts


def _by_folder(folder: Path) -> dict[str, list[Sample]]:
    """The samples of Trans10K-v2: SPLIT/images/NAME.jpg with SPLIT/masks_12/NAME_mask.png."""
    parts: dict[str, list[Sample]] = {}
    alone: list[str] = []
    for split, name in _TRANS10K_FOLDERS.items():
        pairs = [
            (image, folder / name / "masks_12" / f"{image.stem}_mask.png")
            for image in sorted((folder / name / "images").glob("*.jpg"))
        ]
        alone += [str(image.relative_to(folder)) for image, mask in pairs if not mask.is_file()]
        parts[split] = [Sample(image.stem, image, mask) for image, mask in pairs]
    empty = [name for split, name in _TRANS10K_FOLDERS.items() if not parts[split]]
    if alone or empty:
        what = [f"{len(alone)} images have no mask ({first_few(alone)})"] if alone else []
        what += [f"there are no images in {name}/images" for name in empty]
        raise DataError(f"the archive: {'; '.join(what)}. It must hold SPLIT/images and SPLIT/masks_12.")
    return parts


def _one_split_each(parts: dict[str, list[Sample]]) -> dict[str, list[Sample]]:
    """The parts without the images that a later part has, too: what is tested must not be trained on."""
    last = {sample.image: name for name, part in parts.items() for sample in part}
    return {name: [sample for sample in part if last[sample.image] == name] for name, part in parts.items()}


def _write_csv(path: Path, header: tuple[str, ...], folder: Path, rows: Sequence[tuple[Path | str, ...]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([cell.relative_to(folder).as_posix() if isinstance(cell, Path) else cell for cell in row])
    write_text(path, text.getvalue())


def _notes(
    entry: PaperSet, parts: dict[str, list[Sample]], chosen: dict[str, list[Sample]], repaired: Repaired
) -> list[str]:
    notes = []
    moved = {name: len(part) - len(chosen[name]) for name, part in parts.items()}
    notes += [
        f"{count} images of {name} are in a later part, too, and were left out of {name}"
        for name, count in moved.items()
        if count
    ]
    if repaired.binarised:
        notes.append(f"{repaired.binarised} masks were not plain 0 and 255: made so, at 128, in {REPAIRED}")
    if repaired.resized:
        notes.append(f"{repaired.resized} masks had another size than their image: resized in {REPAIRED}")
    for test in entry.tests:
        found = len(chosen[_key(entry, test.name)])
        if test.images is not None and found != test.images:
            notes.append(
                f"{test.name}: {found} test images, where the literature has {test.images}: "
                "scores are not those of the same images"
            )
    return notes


def _source(entry: PaperSet, record: Record, layout: Layout) -> str:
    """The text of SOURCE.md."""
    counts = "\n".join(f"| {name} | {count:,} |" for name, count in layout.counts.items())
    notes = "".join(f"- {note}\n" for note in layout.notes) or "- nothing was changed\n"
    tests = "\n".join(f"    convlora evaluate RUN --images {test.csv}" for test in entry.tests)
    return f"""# {entry.title}

The images and masks are not ours, and no licence to them comes with this program.

- made by: {entry.citation}
- found at: {entry.origin}
- licence: {entry.licence}
- archive: {record.source}
- its size: {record.bytes:,} bytes, SHA-256 {record.sha256}, recorded {record.recorded}

The archive's hash was not published: it is what the first download had.

| part | images |
|---|---:|
{counts}

In the literature: {entry.splits}.

What was changed on the way from the archive:

{notes}
To train as the Conv-LoRA paper (Zhong et al., ICLR 2024) and to score each test set, in this folder:

    convlora train --preset {entry.name} --images {LISTING} --output RUN
{tests}
"""
