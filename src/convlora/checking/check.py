"""Check a data set: measure every pair, look for what is wrong, and show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convlora.checking.settings import CheckSettings, validate
from convlora.checking.summary import as_json, survey_of
from convlora.data.findings.checking import CheckedData, check_data
from convlora.data.findings.finding import Survey
from convlora.data.readers.finding import recognised
from convlora.files import write_json


@dataclass(frozen=True)
class Check:
    """What was found."""

    settings: CheckSettings
    data: CheckedData
    format: tuple[str, str]
    """Of the data, and why it is taken for that."""
    survey: Survey
    """Figures of every pair."""

    def as_json(self) -> dict[str, Any]:
        """Everything in plain values."""
        return as_json(self.data, self.survey, self.format)

    def write(self, folder: Path) -> Path:
        """Write check.html and check.json into a folder; returns the page's path.

        Raises:
            DataError: An image or a mask cannot be read any more.
            OutputError: The folder cannot be written.
        """
        from convlora.checking.page import write_page  # the pictures need libraries that take a second to import

        page = folder / "check.html"
        write_page(page, self.settings, self.data, self.survey, self.format)
        write_json(folder / "check.json", self.as_json())
        return page


def check(settings: CheckSettings, progress: Callable[[int, int], None] | None = None) -> Check:
    """Check every image and mask.

    Raises:
        SettingsError: Settings contradict each other.
        DataError: The data cannot be used as they are.
    """
    validate(settings)
    found = recognised(settings)
    data = check_data(settings, progress=progress, image_size=settings.image_size, thorough=True)
    return Check(settings, data, found, survey_of(data, settings, settings.image_size))
