"""Everything that can be set about a reproduction, beside the training itself; without torch, for a quick help."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from convlora.data.catalog.settings import LISTING, GetSettings
from convlora.errors import SettingsError
from convlora.training.settings import METHODS

OWN = {"images": "data", "masks": "data", "method": "methods", "seed": "seeds"}
"""Settings of the training that a reproduction sets itself, and what to set instead."""


@dataclass(frozen=True, kw_only=True)
class ReproduceSettings:
    """Which rows of the paper to make again."""

    name: str
    """polyp, isic2017, camo, sbu-shadow, leaf, road or trans10k."""
    output: str | None = None
    """Folder of the runs and the table; default runs/reproduce-NAME. One that was interrupted is continued."""
    data: str = "data"
    """Folder in which the set has, or gets, a folder of its name."""
    archive: str | None = None
    """Zip file of the set to use instead of downloading it."""
    sha256: str | None = None
    """What the archive's SHA-256 must be; default what the first download had."""
    methods: list[str] = field(default_factory=lambda: ["lora", "conv-lora"])
    """Rows of the table, as --method of `convlora train`."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """One run of each method for each seed; the paper has three."""

    @property
    def folder(self) -> Path:
        """Where runs and table go."""
        return Path(self.output or f"runs/reproduce-{self.name}")

    @property
    def source(self) -> GetSettings:
        """How the set is got."""
        return GetSettings(name=self.name, output=self.data, archive=self.archive, sha256=self.sha256)

    @property
    def listing(self) -> Path:
        """The set's CSV file, there or to come."""
        return self.source.folder / LISTING

    def validate(self) -> None:
        """Raise one `SettingsError` that lists everything wrong with the values."""
        self.source.validate()
        problems = []
        if not self.methods or len(set(self.methods)) < len(self.methods) or not set(self.methods) <= set(METHODS):
            problems.append(f"methods={','.join(self.methods)!r} must be some of {', '.join(METHODS)}, each once")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            problems.append(f"seeds={self.seeds} must be different numbers from 0 on, at least one")
        if problems:
            raise SettingsError("; ".join(problems) + ".")
