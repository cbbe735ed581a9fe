"""Text files in a folder that appears as a whole, so that each need not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def put_text(path: Path, text: str) -> None:
    """Write UTF-8 text, and make the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def put_json(path: Path, value: Any) -> None:
    """Write JSON without line breaks, which would triple the size of lists of points."""
    put_text(path, json.dumps(value, allow_nan=False) + "\n")
