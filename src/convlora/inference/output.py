"""The folder of masks: names of its files, and what may be in it beforehand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from convlora.data.samples import Sample
from convlora.data.sources import file_of
from convlora.errors import OutputError, PairingError
from convlora.files import output_errors
from convlora.inference.settings import PredictSettings


@dataclass(frozen=True)
class ImageFiles:
    """Names of the files of one image, which iterates over them in the order of writing."""

    probabilities: tuple[str, ...]
    """One a class but the background; none if they are not wanted."""
    overlay: str | None
    polygons: str | None
    masks: tuple[str, ...]
    """One; where classes may overlap one a class but the background."""

    def __iter__(self) -> Iterator[str]:
        yield from self.probabilities
        yield from filter(None, (self.overlay, self.polygons))
        yield from self.masks


def class_parts(id2label: Mapping[int, str]) -> list[str]:
    """What stands for each class but the background in the names of its files: its name, or its id if that cannot be.

    Letters, digits and dashes stay, all else becomes a dash.
    """
    names = {i: re.sub(r"[^\w-]+", "-", id2label[i]).strip("-") for i in sorted(id2label) if i}
    counts = Counter(name.lower() for name in names.values())
    reserved = re.compile(r"|overlay|probability.*|\d+")
    return [
        str(i) if counts[name.lower()] > 1 or reserved.fullmatch(name.lower()) else name for i, name in names.items()
    ]


def image_files(
    name: str, settings: PredictSettings, num_classes: int, parts: Sequence[str] = (), *, suffix: str = ".png"
) -> ImageFiles:
    """Names of the files of one image.

    Args:
        name: Of the image.
        settings: Say which files are wanted.
        num_classes: The background included.
        parts: `class_parts` of classes that may overlap, each of which has a mask of its own.
        suffix: Of all but the overlay, which is a picture, and the polygons.
    """
    numbers = [""] if num_classes == 2 else [f"_{i}" for i in range(1, num_classes)]
    return ImageFiles(
        probabilities=tuple(f"{name}_probability{i}{suffix}" for i in numbers) if settings.probabilities else (),
        overlay=f"{name}_overlay.png" if settings.overlays else None,
        polygons=f"{name}.{settings.polygons}" if settings.polygons else None,
        masks=tuple(f"{name}_{part}{suffix}" for part in parts) or (f"{name}{suffix}",),
    )


def present_files(output: Path, samples: Sequence[Sample], others: Collection[str], *, skip_existing: bool) -> set[str]:
    """Names of the files that the output folder holds already.

    Args:
        output: The folder; it need not exist.
        samples: All images.
        others: Names of files that other processes may be writing at this moment.
        skip_existing: Allow files of all images, and foreign ones.

    Raises:
        OutputError: The folder holds the images, or a file that is not allowed.
    """
    with output_errors(output):
        if not output.exists():
            return set()
        present = {entry.name for entry in output.iterdir() if not entry.name.startswith(".")}
        among_images = output.samefile(file_of(samples[0].image).parent)
    if among_images:
        raise OutputError(f"{output} holds the images themselves. Choose a new folder for the masks.")
    refused = present - set(others)
    if refused and not skip_existing:
        raise OutputError(
            f"{output} is not empty (it holds {min(refused)}). Choose a new folder, or continue an interrupted "
            "prediction with --skip_existing."
        )
    return present


def refuse_clashes(files: Mapping[str, Iterable[str]]) -> None:
    """Raise a `PairingError` if two images would be written to the same file."""
    owners: dict[str, str] = {}
    for name, written in files.items():
        for file in written:
            if (other := owners.setdefault(file, name)) != name:
                raise PairingError(
                    f"the images {other} and {name} would both be written to {file}. Rename one of them."
                )
