"""What every reader gives."""

from __future__ import annotations

from dataclasses import dataclass, field

from convlora.data.labels.format import LabelFormat
from convlora.data.samples import Sample


@dataclass(frozen=True)
class FoundData:
    """The samples of a data set, and what its source says about them."""

    samples: list[Sample]
    """With different names, sorted by name, each with a mask."""
    labels: LabelFormat | None = None
    """Classes and what the values of the masks mean; None if the values themselves must tell."""
    notes: list[str] = field(default_factory=list)
    """What the user should know: what was read how, and what was left out."""
    named: bool = True
    """Whether the names in `labels` are the source's own; else they are those of `DataSettings.classes`, or made up."""
    intensity: str = "auto"
    """How values of more than 8 bits are read; for the model to keep. See `convlora.data.scientific.windows`."""
