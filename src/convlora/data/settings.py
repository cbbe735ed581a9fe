"""Everything that can be set about the data; light to import, because the command line's help needs it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from convlora.data.scientific.windows import intensity_problem

MASK_FORMATS = ("auto", "ids", "binary", "colours")
TASKS = ("exclusive", "multilabel")
BACKGROUND = "background"  # what a class can be mapped to, beside a new name
IGNORE = "ignore"
HUB = "hf:"
"""What the name of a data set on the Hugging Face hub begins with, where otherwise a place on disk is."""
CHANNEL_STATISTICS = ("data", "sam")
MOST_CHANNELS = 16
LEAST_TILE = 16
MOST_OVERLAP = 0.9
FORMATS = (
    "auto",
    "folders",
    "csv",
    "coco",
    "coco-panoptic",
    "yolo",
    "roboflow-masks",
    "run-lengths",
    "label-studio",
    "voc",
    "labelme",
    "cvat",
    "cityscapes",
    "parquet",
    "hf",
)


@dataclass(frozen=True)
class ImageLimits:
    """What an image file may ask of the machine."""

    max_pixels: int = 64_000_000
    """Height times width; a larger file is refused before it is decoded."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the images and masks are, what the masks mean, and how they are split."""

    images: str
    """Folder of images, or a CSV file with columns image, mask and, optionally, split (train, val or test)."""
    masks: str | None = None
    """Folder of masks, paired with the images by stem; not with a CSV file."""
    format: str = "auto"
    """auto looks at the files and tells; folders: images and masks of equal stems; csv: a table of them; or the format
    of an annotation tool (docs/annotation-formats.md): coco, coco-panoptic, yolo, roboflow-masks, run-lengths,
    label-studio, voc, labelme, cvat, cityscapes, parquet, hf."""
    classes: list[str] | None = None
    """Class names from id 0 (background) on; default: read off the masks. Of data that name them: which, in order."""
    class_map: dict[str, str] | None = None
    """Class, by name or number → new name, background or ignore; equal new names merge. Or: car=vehicle,3=ignore."""
    class_colours: dict[str, str] | None = None
    """Class name → its colour in pictures, such as leaf=#00a040; default as the source says, else a palette."""
    task: str = "exclusive"
    """exclusive: one class a pixel; multilabel: any number of them, so that classes may overlap."""
    mask_format: str = "auto"
    """auto detects and tells; ids: values are class ids; binary: 0 is background, 255 foreground; colours: RGB."""
    colours: dict[str, str] | str | None = None
    """Of mask_format colours: a file of lines NAME R G B (also CSV, JSON, CVAT's labelmap.txt), or name: '#rrggbb'."""
    colour_tolerance: int = 0
    """Levels of 255 by which red, green and blue may each be off, where JPEG has smeared masks in colour."""
    image_column: str | None = None
    """Of a Parquet table or a data set of the library datasets: the column of images; default by its name and type."""
    mask_column: str | None = None
    """The column of masks, likewise."""
    mask_pattern: str | None = None
    """Where the mask of an image is below masks, or images: '{stem}_mask.png', '{parent}/masks/{stem}.png' and others;
    with one mask for each of the classes: '{stem}_{class}.png'."""
    image_pattern: str | None = None
    """Beside mask_pattern: which files are images, and which part of their names is {stem}: 'img_{stem}.jpg'."""
    ignore_index: int = 255
    """Mask value of pixels that count neither in training nor in scores."""
    val_fraction: float = 0.15
    """Fraction of the images for validation; not used if the CSV file has splits."""
    test_fraction: float = 0.15
    """Fraction of the images for the test; not used if the CSV file has splits."""
    folds: int | None = None
    """Cross-validation: so many parts, each of which is the test in turn; instead of test_fraction."""
    fold: int = 0
    """Which of the folds is the test, from 0."""
    group: str | None = None
    """Regular expression; its first group names an image's volume or patient, which stays in one split. Default as the
    source says, such as the column group of a CSV file."""
    split_seed: int = 0
    """Another number gives another split."""
    train_fraction: float = 1.0
    """Fraction of the training images that is used, at least one image; validation and test stay whole."""
    train_images: int | None = None
    """Number of training images that is used, instead of a fraction."""
    train_images_per_class: int | None = None
    """Few-shot: training images are used until so many hold each class (or all that do), instead of a fraction."""
    subset_seed: int | None = None
    """Another number uses other training images; smaller parts lie within larger ones. Default split_seed."""
    max_megapixels: float = 64.0
    """Images and masks of more megapixels are refused before they are decoded."""
    intensity: str = "auto"
    """How values of more than 8 bits become grey: auto (CT soft-tissue, else percentile), percentile, full, a window of
    CT (lung, mediastinum, soft-tissue, liver, brain, bone), or the values of black and white as in -160,240."""
    volume: int | None = None
    """Of NIfTI files that hold several volumes, the one that is read, from 0."""
    attribute: str | None = None
    """Attribute that holds the class of outlines on earth (GeoJSON …); default one called class, label or the like."""
    channels: int | None = None
    """Read images as so many raw channels, 1 to 16, from TIFF, .npy and others; default as 8-bit RGB pictures."""
    channel_statistics: str = "data"
    """Of raw channels: data normalises each by its own mean and deviation; sam the first three, 8-bit RGB, as SAM."""
    display_channels: list[int] | None = None
    """Raw channels, from 0, that pictures show as red, green and blue; one is shown as grey. Default the first 3."""

    @property
    def limits(self) -> ImageLimits:
        """The limits of image files in pixels."""
        return ImageLimits(max_pixels=int(self.max_megapixels * 1_000_000))

    def data_part(self) -> DataSettings:
        """The settings of the data alone, their places given absolutely."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(DataSettings)}
        places = {name: values[name] for name in ("images", "masks", "colours") if isinstance(values[name], str)}
        absolute = {n: place if place.startswith(HUB) else str(Path(place).absolute()) for n, place in places.items()}
        return DataSettings(**{**values, **absolute})

    def problems(self) -> list[str]:
        """Everything wrong with the values, one sentence each; empty if they can be used."""
        problems = [
            f"{name}={value} must be at least 0 and less than 1"
            for name in ("val_fraction", "test_fraction")
            if not 0 <= (value := getattr(self, name)) < 1
        ]
        if not problems and self.folds is None and self.val_fraction + self.test_fraction >= 1:
            total = f"{self.val_fraction} + {self.test_fraction}"
            problems.append(f"val_fraction + test_fraction = {total} must be less than 1: some images must train")
        if self.format not in FORMATS:
            problems.append(f"format={self.format!r} must be one of {', '.join(FORMATS)}")
        if self.task not in TASKS:
            problems.append(f"task={self.task!r} must be one of {', '.join(TASKS)}")
        if self.mask_format not in MASK_FORMATS:
            problems.append(f"mask_format={self.mask_format!r} must be one of {', '.join(MASK_FORMATS)}")
        if not 0 <= self.ignore_index <= 255:
            problems.append(f"ignore_index={self.ignore_index} must be between 0 and 255")
        if not (self.max_megapixels > 0 and math.isfinite(self.max_megapixels)):
            problems.append(f"max_megapixels={self.max_megapixels} must be finite and more than 0")
        problems += [problem] if (problem := intensity_problem(self.intensity)) else []
        if self.volume is not None and self.volume < 0:
            problems.append(f"volume={self.volume} must be at least 0")
        problems += colour_problems(self.class_colours or {}) + self._name_problems() + self._mask_problems()
        problems += channel_problems(self.channels, self.channel_statistics, self.display_channels)
        return problems + self._subset_problems() + self._group_problems() + self._fold_problems()

    def _name_problems(self) -> list[str]:
        problems = []
        if any(not name.strip() for name in self.classes or ()):
            problems.append(f"classes={','.join(self.classes or ())} holds an empty name")
        if blank := [key for key, target in (self.class_map or {}).items() if not target.strip()]:
            problems.append(f"class_map: {blank[0]!r} has no new name; give it one, {BACKGROUND} or {IGNORE}")
        return problems

    def _mask_problems(self) -> list[str]:
        problems = []
        if not 0 <= self.colour_tolerance <= 127:
            problems.append(f"colour_tolerance={self.colour_tolerance} must be between 0 and 127")
        if self.mask_format != "colours" and (self.colours is not None or self.colour_tolerance):
            problems.append("colours and colour_tolerance are for --mask_format colours; say it, too")
        if self.image_pattern is not None and self.mask_pattern is None:
            problems.append("image_pattern is given without mask_pattern, which says where the masks are")
        return problems

    def _subset_problems(self) -> list[str]:
        problems = []
        if not 0 < self.train_fraction <= 1:
            problems.append(f"train_fraction={self.train_fraction} must be more than 0 and at most 1")
        if self.train_images is not None and self.train_images < 1:
            problems.append(f"train_images={self.train_images} must be at least 1")
        if self.train_images is not None and self.train_fraction != 1:
            problems.append(
                f"train_images={self.train_images} and train_fraction={self.train_fraction} say the same in two ways; "
                "give one of them"
            )
        if self.train_images_per_class is not None:
            if self.train_images_per_class < 1:
                problems.append(f"train_images_per_class={self.train_images_per_class} must be at least 1")
            if self.train_images is not None or self.train_fraction != 1:
                problems.append(
                    f"train_images_per_class={self.train_images_per_class} is given beside train_images or "
                    "train_fraction; give one of them"
                )
        return problems

    def _fold_problems(self) -> list[str]:
        if self.folds is None:
            return [f"fold={self.fold} is given without folds, the number of them"] if self.fold else []
        problems = []
        if self.folds < 2:
            problems.append(f"folds={self.folds} must be at least 2")
        elif not 0 <= self.fold < self.folds:
            problems.append(f"fold={self.fold} must be between 0 and {self.folds - 1}, because folds={self.folds}")
        elif self.val_fraction + 1 / self.folds >= 1:
            problems.append(
                f"val_fraction={self.val_fraction} and folds={self.folds}, of which one is the test, leave nothing to "
                "train on; lower val_fraction"
            )
        return problems

    def _group_problems(self) -> list[str]:
        if self.group is None:
            return []
        try:
            groups = re.compile(self.group).groups
        except re.error as error:
            return [f"group={self.group!r} is not a regular expression: {error}"]
        if groups == 0:
            return [rf"group={self.group!r} has no group; put parentheses around the part to keep, as in '^(\w+)_\d+$'"]
        return []


def tile_problems(tile: int | None, overlap: float | None, *, whole: int | None = None) -> list[str]:
    """Everything wrong with the settings of tiles.

    Args:
        tile: Side of the tiles in pixels, or `whole`, which stands for no tiles; None if it is not given.
        overlap: Of the tiles; None if it is not given.
    """
    problems = []
    if tile is not None and tile != whole:
        if tile < LEAST_TILE:
            problems.append(f"tile={tile} must be at least {LEAST_TILE}")
        elif find_spec("monai") is None:
            problems.append("tile needs MONAI, which is not installed; install convlora[tiles]")
    if overlap is not None and not 0 <= overlap <= MOST_OVERLAP:
        problems.append(f"overlap={overlap} must be between 0 and {MOST_OVERLAP}")
    return problems


def channel_problems(channels: int | None, statistics: str, display: list[int] | None) -> list[str]:
    """Everything wrong with the settings of raw channels."""
    problems = []
    if statistics not in CHANNEL_STATISTICS:
        problems.append(f"channel_statistics={statistics!r} must be one of {', '.join(CHANNEL_STATISTICS)}")
    if channels is None:
        given = {"channel_statistics": statistics != "data", "display_channels": display is not None}
        return problems + [f"{name} is for raw channels; give channels, too" for name, set_ in given.items() if set_]
    if not 1 <= channels <= MOST_CHANNELS:
        return [*problems, f"channels={channels} must be between 1 and {MOST_CHANNELS}"]
    if statistics == "sam" and channels < 3:
        problems.append(f"channel_statistics='sam' needs channels that begin with RGB, and channels={channels}")
    if display is not None and not (len(display) in (1, 3) and all(0 <= channel < channels for channel in display)):
        problems.append(f"display_channels={display} must be one or three numbers from 0 to {channels - 1}")
    return problems


def colour_problems(colours: Mapping[str, str]) -> list[str]:
    """Everything wrong with colours by class name."""
    wrong = {name: colour for name, colour in colours.items() if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour)}
    problems = [
        f"class_colours: {name}={colour!r} must be '#' and six hexadecimal digits, such as '#00a040'"
        for name, colour in wrong.items()
    ]
    owners: dict[str, str] = {}
    for name, colour in colours.items():
        if (other := owners.setdefault(colour.lower(), name)) != name:
            problems.append(f"class_colours: {other} and {name} are both {colour}; give each its own colour")
    return problems
