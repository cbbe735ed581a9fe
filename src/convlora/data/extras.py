"""Libraries that are installed only where their formats are needed."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from convlora.errors import SettingsError


def need(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional library.

    Args:
        module: Its name, with dots for a part of it.
        extra: The extra of this package that installs it.
        purpose: What it is needed for, to begin the message: "reading COCO".

    Raises:
        SettingsError: It is not installed, or cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise SettingsError(
            f"{purpose} needs {name}, which is not installed ({error}); install convlora[{extra}]."
        ) from error
