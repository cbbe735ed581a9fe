"""Everything that can be set about a prediction; without torch, so that `convlora predict --help` is quick."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from convlora.data.scientific.windows import intensity_problem
from convlora.data.settings import tile_problems
from convlora.errors import SettingsError

POLYGONS = ("geojson", "gpkg")


@dataclass(frozen=True, kw_only=True)
class InferenceSettings:
    """What prediction and evaluation share: the run, and how it is computed.

    Raises:
        SettingsError: Listing every value that cannot be used.
    """

    run: str
    """Run folder, or the adapter folder in it."""
    batch_size: int = 1
    """Images that are segmented at a time."""
    model: str | None = None
    """Base SAM, if it is not where it was during training."""
    device: str = "auto"
    """auto takes a GPU if there is one; cpu."""
    precision: str = "auto"
    """auto: bf16 where the hardware has it, fp16 on older GPUs, else fp32; or one of these."""
    max_megapixels: float = 64.0
    """Larger images are refused before they are decoded."""
    intensity: str | None = None
    """How values of more than 8 bits become grey, such as lung or -160,240; default as in training."""
    tile: int | None = None
    """Side in pixels of the tiles that larger images are cut into; 0: none are cut; default as in training."""
    overlap: float | None = None
    """Fraction of a tile that it shares with the next one, 0 to 0.9; default as in training, where it is 0.25."""

    def __post_init__(self) -> None:
        problems = self.problems()
        if problems:
            raise SettingsError("; ".join(problems) + ".")

    def problems(self) -> list[str]:
        """Everything wrong with the values, one sentence each; empty if they can be used."""
        problems = []
        if self.batch_size < 1:
            problems.append(f"batch_size={self.batch_size} must be at least 1")
        if not (self.max_megapixels > 0 and math.isfinite(self.max_megapixels)):
            problems.append(f"max_megapixels={self.max_megapixels} must be finite and more than 0")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device):
            problems.append(f"device={self.device!r} must be auto, cpu, mps, cuda or cuda:NUMBER")
        problems += [problem] if self.intensity is not None and (problem := intensity_problem(self.intensity)) else []
        return problems + tile_problems(self.tile, self.overlap, whole=0)


@dataclass(frozen=True, kw_only=True)
class PredictSettings(InferenceSettings):
    """Prediction of a folder of images."""

    images: str
    """Folder of images, or one image."""
    output: str
    """Folder for the masks: NAME.png, pixel value = class id, at the image's own size; where classes may overlap,
    NAME_CLASS.png, 255 where the class is."""
    overlays: bool = False
    """Also write NAME_overlay.png: the image with the classes in colour."""
    probabilities: bool = False
    """Also write NAME_probability.png: foreground probability as 0…65535; one file a class if there are several."""
    palette: bool = False
    """Write masks that viewers show in the classes' colours; numpy, PIL and GDAL still read ids, OpenCV colours."""
    volume: int | None = None
    """Of NIfTI files that hold several volumes, the one that is segmented, from 0."""
    polygons: str | None = None
    """geojson or gpkg: also write NAME.geojson or NAME.gpkg, the classes' outlines, of images on earth (GeoTIFF)."""
    skip_existing: bool = False
    """Keep masks that the output folder holds already: continues an interrupted prediction."""

    def problems(self) -> list[str]:
        """Everything wrong with the values, one sentence each; empty if they can be used."""
        wrong = self.polygons not in (None, *POLYGONS)
        return [
            *super().problems(),
            *([f"polygons={self.polygons!r} must be one of {', '.join(POLYGONS)}"] if wrong else []),
        ]
