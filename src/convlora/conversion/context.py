"""What every writer of a format is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from convlora.conversion.outlines import Polygon
from convlora.conversion.pictures import Found
from convlora.conversion.polygons import Fit, polygons
from convlora.conversion.settings import ConversionOptions
from convlora.data.labels.format import LabelFormat
from convlora.data.settings import ImageLimits


@dataclass(frozen=True)
class Conversion:
    """One conversion, and how well its polygons fit."""

    target: str
    labels: LabelFormat
    options: ConversionOptions
    limits: ImageLimits
    fit: Fit = field(default_factory=Fit)

    @property
    def as_polygons(self) -> bool:
        """Whether objects become polygons."""
        return self.options.polygons(self.target)

    def outline(self, found: Found) -> list[Polygon]:
        """The polygons of an object, as exact as was asked for."""
        outlined = polygons(found, self.options.tolerance)
        if self.options.tolerance:
            self.fit.compare(found, outlined)
        return outlined
