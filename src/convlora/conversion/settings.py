"""Everything that can be set about a conversion; light to import, because the command line's help needs it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from convlora.data.settings import ImageLimits
from convlora.errors import SettingsError
from convlora.inference.settings import PredictSettings

TARGETS = {
    "coco": "annotations.json",
    "labelme": "NAME.json, labels.txt",
    "yolo": "labels/NAME.txt, data.yaml",
    "cvat": "annotations.xml",
    "geojson": "NAME.geojson",
    "nifti": "VOLUME.nii.gz, labels.txt",
    "dicom-seg": "SERIES.dcm",
    "colours": "NAME.png, labelmap.txt",
}
"""Formats, and the files that each writes."""
OBJECTS = ("components", "classes")
SHAPES = {"coco": ("masks", "polygons"), "labelme": ("polygons", "masks"), "cvat": ("masks", "polygons")}
"""Formats that know both shapes, the default first."""


@dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """How masks become objects of a format."""

    objects: str = "components"
    """components: pixels of a class that touch, if only in a corner, are one object; classes: all of an image are."""
    shapes: str | None = None
    """masks or polygons, for coco and cvat (default masks) and labelme (default polygons)."""
    tolerance: float = 0.0
    """Polygons may depart from the pixels' edges by so many pixels, and have fewer points; 0 follows them exactly."""
    copy_images: bool = False
    """Also put the images beside what is written; those that are parts of files, as PNG."""

    def option_problems(self, target: str) -> list[str]:
        """Everything wrong with the values for a format, one sentence each; empty if they can be used."""
        if target not in TARGETS:
            return [f"format {target!r} must be one of {', '.join(TARGETS)}"]
        problems = []
        known = SHAPES.get(target, ())
        if self.shapes is not None and self.shapes not in known:
            fixed = f"{target} has one kind of shape; leave it out" if not known else "it must be masks or polygons"
            problems.append(f"shapes={self.shapes!r}: {fixed}")
        if self.objects not in OBJECTS:
            problems.append(f"objects={self.objects!r} must be one of {', '.join(OBJECTS)}")
        if not (self.tolerance >= 0 and math.isfinite(self.tolerance)):
            problems.append(f"tolerance={self.tolerance} must be at least 0 and finite")
        if self.tolerance and not self.polygons(target):
            problems.append(f"tolerance={self.tolerance} is for polygons, and {target} gets masks")
        if self.copy_images and target in ("geojson", "nifti", "dicom-seg"):
            problems.append(f"copy_images is not for {target}, whose files belong to the images where they are")
        return problems

    def polygons(self, target: str) -> bool:
        """Whether a format gets polygons."""
        return (self.shapes or SHAPES.get(target, ("polygons",))[0]) == "polygons" and target not in (
            "nifti",
            "dicom-seg",
            "colours",
        )


@dataclass(frozen=True, kw_only=True)
class ConvertMasksSettings(ConversionOptions):
    """Conversion of a folder of predicted masks.

    Raises:
        SettingsError: Listing every value that cannot be used.
    """

    masks: str
    """Folder of masks as `convlora predict` writes them: NAME.png, pixel value = class id."""
    images: str
    """Their images, given as to predict."""
    to: str
    """coco, labelme, yolo, cvat, geojson, nifti, dicom-seg or colours."""
    output: str
    """New folder for the result."""
    run: str | None = None
    """Run folder, or the adapter folder in it, which names the classes."""
    classes: list[str] | None = None
    """Class names from id 0 (background) on, instead of a run."""
    max_megapixels: float = 64.0
    """Larger images and masks are refused before they are decoded."""

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise SettingsError("; ".join(problems) + ".")

    @property
    def limits(self) -> ImageLimits:
        """The limits of image files in pixels."""
        return ImageLimits(max_pixels=int(self.max_megapixels * 1_000_000))

    def problems(self) -> list[str]:
        """Everything wrong with the values, one sentence each; empty if they can be used."""
        problems = self.option_problems(self.to)
        if (self.run is None) == (self.classes is None):
            problems.append("the classes need names: give either --run RUN or --classes background,NAME,...")
        if not (self.max_megapixels > 0 and math.isfinite(self.max_megapixels)):
            problems.append(f"max_megapixels={self.max_megapixels} must be finite and more than 0")
        return problems


@dataclass(frozen=True, kw_only=True)
class PredictCommandSettings(PredictSettings):
    """A prediction whose masks are also converted."""

    save_as: list[str] | None = None
    """Also write the masks as coco, labelme, yolo, cvat, geojson, nifti, dicom-seg or colours: into OUTPUT-FORMAT."""

    def problems(self) -> list[str]:
        """Everything wrong with the values, one sentence each; empty if they can be used."""
        unknown = [target for target in self.save_as or () if target not in TARGETS]
        wrong = [f"save_as={','.join(unknown)} must be some of {', '.join(TARGETS)}"] if unknown else []
        return super().problems() + wrong

    def conversions(self) -> list[ConvertMasksSettings]:
        """The conversions that are asked for, each into a folder beside the output."""
        return [
            ConvertMasksSettings(
                masks=self.output,
                images=self.images,
                to=target,
                output=f"{self.output.rstrip('/')}-{target}",
                run=self.run,
                max_megapixels=self.max_megapixels,
            )
            for target in dict.fromkeys(self.save_as or ())
        ]
