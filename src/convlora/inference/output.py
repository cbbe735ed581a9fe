"""The folder of masks: names of its files, and what may be in it beforehand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from convlora.data.samples import Sample
from convlora.data.sources import file_of
from convlora.errors import OutputError, PairingError
from convlora.files import output_errors
from convlora.inference.settings import PredictSettings


def file_names(name: str, settings: PredictSettings, num_classes: int) -> list[str]:
    """Names of the files of one image in the order of writing: probabilities, overlay, mask."""
    names = []
    if settings.probabilities:
        suffixes = [""] if num_classes == 2 else [f"_{i}" for i in range(1, num_classes)]
        names += [f"{name}_probability{suffix}.png" for suffix in suffixes]
    if settings.overlays:
        names.append(f"{name}_overlay.png")
    return [*names, f"{name}.png"]


def present_files(
    output: Path, samples: Sequence[Sample], others: Sequence[Sample], *, skip_existing: bool
) -> set[str]:
    """Names of the files that the output folder holds already.

    Args:
        output: The folder; it need not exist.
        samples: All images.
        others: Those whose files other processes may be writing at this moment.
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
    names = {sample.name for sample in others}
    refused = {file for file in present if names.isdisjoint(_possible_names(file))}
    if refused and not skip_existing:
        raise OutputError(
            f"{output} is not empty (it holds {min(refused)}). Choose a new folder, or continue an interrupted "
            "prediction with --skip_existing."
        )
    return present


def _possible_names(file: str) -> set[str]:
    """Names of the images that a file may belong to; none if it is not of our making."""
    name = file.removesuffix(".png")
    if name == file:
        return set()
    return {name, re.sub(r"_(overlay|probability(_\d+)?)\Z", "", name)}


def refuse_clashes(files: Mapping[str, Sequence[str]]) -> None:
    """Raise a `PairingError` if two images would be written to the same file."""
    owners: dict[str, str] = {}
    for name, written in files.items():
        for file in written:
            if (other := owners.setdefault(file, name)) != name:
                raise PairingError(
                    f"the images {other} and {name} would both be written to {file}. Rename one of them."
                )
