"""Everything that can be set about getting a set; light to import, because the command line's help needs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from convlora.data.catalog.sets import PaperSet, find_set
from convlora.errors import SettingsError

LISTING = "samples.csv"
"""Name of the file in a set's folder that lists its images and masks."""


@dataclass(frozen=True, kw_only=True)
class GetSettings:
    """Which set to get, and where to."""

    name: str
    """polyp, isic2017, camo, sbu-shadow, leaf, road or trans10k."""
    output: str = "data"
    """Folder in which the set gets a folder of its name."""
    archive: str | None = None
    """Zip file to use instead of downloading one."""
    sha256: str | None = None
    """What the archive's SHA-256 must be; default what the first download had."""
    keep_archive: bool = False
    """Keep the zip file that was downloaded, as .NAME.zip beside the set's folder."""

    @property
    def folder(self) -> Path:
        """The set's own folder."""
        return Path(self.output) / self.name

    @property
    def record(self) -> Path:
        """Where size and hash of its archive are recorded."""
        return Path(self.output) / f"{self.name}.archive.json"

    def validate(self) -> PaperSet:
        """The set.

        Raises:
            SettingsError: There is none of this name, or the hash is none.
        """
        if self.sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", self.sha256):
            raise SettingsError(f"sha256={self.sha256!r} must be 64 hexadecimal digits.")
        return find_set(self.name)
