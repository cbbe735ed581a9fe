"""Write masks in the format of an annotation tool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

from convlora.conversion.context import Conversion
from convlora.conversion.names import read_classes
from convlora.conversion.pictures import Picture, read_pictures
from convlora.conversion.predictions import predicted_samples
from convlora.conversion.settings import ConversionOptions, ConvertMasksSettings
from convlora.data.labels.format import LabelFormat
from convlora.data.samples import Sample
from convlora.data.settings import ImageLimits
from convlora.errors import OutputError, SettingsError
from convlora.files import output_errors, whole_folder

Progress = Callable[[int, int], None]

_MODULES = {"colours": "coloured"}  # where the module is not named like its format


def convert_folder(settings: ConvertMasksSettings, progress: Progress = lambda done, total: None) -> list[str]:
    """Convert the masks of a prediction; return notes on what the format cannot hold; see `convert_samples`.

    Raises:
        SettingsError: Classes or options cannot be used, or a library is not installed.
        WeightsError: The run does not name classes.
        DataError: Masks do not belong to the images one to one, or cannot be read or written.
        OutputError: The output is there already, or cannot be written.
    """
    channels = None
    if settings.run is not None:
        labels, channels = read_classes(Path(settings.run))
    else:
        labels = LabelFormat(tuple(settings.classes or ()), "ids", 255)
    samples, notes = predicted_samples(settings.images, Path(settings.masks), labels, settings.limits, channels)
    return notes + convert_samples(
        samples,
        labels,
        settings.to,
        Path(settings.output),
        settings,
        limits=settings.limits,
        channels=channels,
        progress=progress,
    )


def convert_samples(
    samples: Sequence[Sample],
    labels: LabelFormat,
    target: str,
    output: Path,
    options: ConversionOptions | None = None,
    *,
    limits: ImageLimits | None = None,
    channels: int | None = None,
    progress: Progress = lambda done, total: None,
) -> list[str]:
    """Write the masks of samples of any source in a format; return notes on what the format cannot hold.

    Args:
        samples: Each with a mask.
        labels: What the values of the masks mean.
        target: A key of `convlora.conversion.settings.TARGETS`.
        output: A new or empty folder; it appears whole or not at all.
        options: How masks become objects.
        limits: Of images and masks.
        channels: How many raw channels the images have; None if they are pictures.
        progress: Called with the number of masks done and of all.

    Raises:
        As `convert_folder`.
    """
    options = options or ConversionOptions()
    if problems := options.option_problems(target):
        raise SettingsError("; ".join(problems) + ".")
    refuse_used(output)
    how = Conversion(target, labels, options, limits or ImageLimits())
    ignored = 0

    def counted() -> Iterator[Picture]:
        nonlocal ignored
        for done, picture in enumerate(read_pictures(samples, labels, how.limits, channels), 1):
            ignored += picture.ignored
            yield picture
            progress(done, len(samples))

    writer = import_module(f"convlora.conversion.{_MODULES.get(target, target.replace('-', '_'))}")
    with whole_folder(output) as folder:
        notes: list[str] = writer.write(counted(), folder, how)
    if ignored and target not in ("colours", "nifti"):
        notes.append(f"{ignored} ignored pixels are background now, because {target} knows none")
    if options.tolerance:
        notes.append(f"polygons within {options.tolerance:g} pixels of the masks: IoU {how.fit.iou:.4f} with them")
    return notes


def is_used(output: Path) -> bool:
    """Whether a folder is there and holds files.

    Raises:
        OutputError: It cannot be read.
    """
    with output_errors(output):
        return output.exists() and any(output.iterdir())


def refuse_used(output: Path) -> None:
    """Raise an `OutputError` if a folder holds files."""
    if is_used(output):
        raise OutputError(f"{output} is not empty. Choose a new folder.")
