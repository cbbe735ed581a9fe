"""A file of one or several pictures of one size, and its pictures and masks as parts of a data set."""

from __future__ import annotations

import contextlib
import logging
import warnings
from pathlib import Path
from typing import Protocol

import numpy as np

from convlora.data.pixels.decoding import decoding_errors
from convlora.data.scientific.geometry import Geometry
from convlora.data.settings import ImageLimits

MOST_SAMPLED = 4_000_000
"""Values that a window is chosen by, about; a larger stack gives an even sample."""


class Stack(Protocol):
    """What was read off the headers of a file. Stacks are equal if they are of the same file."""

    @property
    def path(self) -> Path:
        """The file, or the folder of files."""

    @property
    def count(self) -> int:
        """Pictures."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of each."""

    @property
    def channels(self) -> int:
        """Of each."""

    @property
    def dtype(self) -> str:
        """NumPy's name of the type of the values."""

    @property
    def bits(self) -> int:
        """Those of a stored value that are used: 12 of a camera that fills 16 only in part."""

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...] | None:
        """8-bit colours of the values of the only channel; None if the values are no numbers of colours."""

    @property
    def mask_problem(self) -> str | None:
        """Why its values cannot be class ids, to continue the sentence "PATH …"; None if they can."""

    @property
    def rgb(self) -> tuple[int, int, int] | None:
        """Numbers of the channels that are red, green and blue, or three times the only one; None if none are."""

    @property
    def unit(self) -> str:
        """What a picture of it is called: page or slice; "" of a file that is one picture."""

    def page(self, index: int, limits: ImageLimits) -> np.ndarray:
        """Values of one picture: (H, W, C) of `dtype`; not to be written into.

        Raises:
            ImageError: It cannot be read.
        """

    def sample(self, limits: ImageLimits) -> np.ndarray:
        """Values of the whole, (n, C) of `dtype`: all of them, or evenly chosen ones, always the same."""

    def in_hounsfield_units(self, limits: ImageLimits) -> bool:
        """Whether this is computed tomography."""

    def geometry(self, index: int) -> Geometry | None:
        """Where a picture lies; None if the file does not say."""


def reading(path: Path, kind: str) -> contextlib.AbstractContextManager[None]:
    """`decoding_errors` of a file of some kind, such as "TIFF"."""
    what = f"damaged, or a kind of {kind} that cannot be read"
    return decoding_errors(path, lambda reason: f"{what} ({reason}). Get the file again, or convert it.")


def sampled(stack: Stack, limits: ImageLimits) -> np.ndarray:
    """The sample of a stack that is read picture by picture; see `Stack.sample`."""
    height, width = stack.size
    pages = min(stack.count, 32) if stack.count * height * width > MOST_SAMPLED else stack.count
    chosen = np.unique(np.linspace(0, stack.count - 1, pages).round().astype(int))
    step = stride(len(chosen), height, width)
    return np.concatenate([_flat(stack.page(int(i), limits)[::step, ::step]) for i in chosen])


def stride(pages: int, height: int, width: int) -> int:
    """Every how many rows and columns are sampled, so that about `MOST_SAMPLED` pixels of all are."""
    return max(1, int(np.ceil(np.sqrt(pages * height * width / MOST_SAMPLED))))


def _flat(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, pixels.shape[-1])


def quiet(name: str) -> None:
    """Let a library keep its warnings about odd files to itself: what is wrong here becomes an error, or is meant."""
    logger = logging.getLogger(name)
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())  # else Python prints warnings to standard error
    if not any(item[0] == "ignore" and item[3] is not None and item[3].pattern == name for item in warnings.filters):
        warnings.filterwarnings("ignore", module=name)
