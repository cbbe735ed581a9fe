"""What can go wrong for a user, as one small tree of exceptions.

Every message says what was given, what is allowed and what to do. The command line prints it as one line and
ends with the class's `exit_code`; a library user catches `ConvloraError` or a branch of it.
"""

from __future__ import annotations


class ConvloraError(Exception):
    """Base of every error that a user can cause and can mend."""

    exit_code = 1


class SettingsError(ConvloraError):
    """A setting is unknown, of the wrong type, or contradicts another."""

    exit_code = 2


class DataError(ConvloraError):
    """The images and masks cannot be used as they are."""

    exit_code = 3


class ImageError(DataError):
    """An image file is not readable as an image within the limits."""


class MaskError(DataError):
    """A mask file does not hold the classes that it should."""


class PairingError(DataError):
    """Images and masks do not belong together one to one."""


class WeightsError(ConvloraError):
    """A model, an adapter or a run folder is damaged, foreign or incomplete."""

    exit_code = 4


class NonFiniteLossError(ConvloraError):
    """The loss or a gradient became infinite or not a number; the weights were left as they were."""

    exit_code = 5


class OutputError(ConvloraError):
    """The output cannot be written: the folder is in use, not writable, or the disk is full."""

    exit_code = 6
