"""Tables of images and masks: which columns they are, and what the classes are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from convlora.data.labels.format import LabelFormat
from convlora.data.pixels.decoding import require_allowed_size
from convlora.data.pixels.masks import one_value_a_pixel
from convlora.data.readers.json_files import read_json
from convlora.data.settings import DataSettings, ImageLimits
from convlora.errors import DataError, MaskError, SettingsError

IMAGE_NAMES = ("image", "img", "images", "pixel_values", "photo", "picture", "image_path", "input_image")
MASK_NAMES = (
    "mask",
    "label",
    "annotation",
    "segmentation",
    "segmentation_mask",
    "semantic_mask",
    "label_mask",
    "masks",
    "labels",
    "annotations",
    "mask_path",
    "seg",
    "gt",
    "ground_truth",
)
NAMES_FILE = "id2label.json"
"""What files of class names are called on the hub."""


class Grid(Protocol):
    """Where a mask is stored as numbers, row by row; see `convlora.data.readers.embedded.Cell`."""

    @property
    def path(self) -> Path:
        """The file that it is in."""

    def rows(self) -> object:
        """Lists of numbers of equal lengths.

        Raises:
            ImageError: They cannot be read any more.
        """


@dataclass(frozen=True)
class GridMask:
    """A mask in a grid."""

    grid: Grid

    @property
    def path(self) -> Path:
        """The file that it is in."""
        return self.grid.path

    def __str__(self) -> str:
        return str(self.grid)

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """The values that it stores: int32 (H, W)."""
        try:
            values = np.array(self.grid.rows())
        except (ValueError, TypeError, OverflowError) as error:
            raise MaskError(f"{self}: its rows are not of equal length, or not numbers ({reason(error)}).") from error
        if values.ndim != 2 or values.dtype.kind not in "uifb":
            raise MaskError(f"{self}: is no table of numbers (height x width), but {values.ndim}-d {values.dtype}.")
        height, width = values.shape
        require_allowed_size(self, height, width, limits)
        return one_value_a_pixel(self, values[..., None])


def pick_columns(images: Sequence[str], masks: Sequence[str], settings: DataSettings) -> tuple[str, str]:
    """The columns of images and masks.

    Args:
        images: Columns that may be images by their type.
        masks: Those that may be masks by their type.
        settings: Of these, `image_column` and `mask_column` decide.

    Raises:
        SettingsError: A column is not there, or several could be meant.
    """
    image = _pick("image", settings.image_column, [c for c in images if c != settings.mask_column], IMAGE_NAMES, masks)
    mask = _pick("mask", settings.mask_column, [column for column in masks if column != image], MASK_NAMES, images)
    return image, mask


def _pick(role: str, given: str | None, there: Sequence[str], names: Sequence[str], others: Sequence[str]) -> str:
    if given is not None:
        if given not in there:
            raise SettingsError(f"{role}_column={given!r} is not among the columns of {role}s: {_listed(there)}.")
        return given
    named = [name for wanted in names for name in there if name.lower() == wanted]
    if not named and role == "image":
        there = [name for name in there if name.lower() not in MASK_NAMES]
    if named or len(there) == 1:
        return (named or list(there))[0]
    every = list(dict.fromkeys((*there, *others)))
    raise SettingsError(f"which column holds the {role}s is not clear: {_listed(every)}. Name it with --{role}_column.")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) or "there is none"


def reason(error: Exception) -> str:
    """What went wrong in another library, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(".")


def names_format(names: Sequence[str], settings: DataSettings, source: object) -> LabelFormat:
    """The format of masks of ids whose classes are called so, from id 0 on.

    Raises:
        DataError: There are too few names, too many, or equal ones.
    """
    if not 2 <= len(names) <= 254 or len(set(names)) < len(names):
        raise DataError(f"{source}: names {len(names)} classes, but 2 to 254 different names can be. Correct it.")
    return LabelFormat(tuple(names), "ids", max(settings.ignore_index, len(names)))


def read_names_file(path: Path) -> list[str]:
    """Class names in the order of their ids, from a file such as `{"0": "background", "1": "leaf"}`.

    Raises:
        DataError: It cannot be read, or is none.
    """
    content = read_json(path)
    pairs = content.items() if isinstance(content, dict) else ()
    by_id = {int(key): name for key, name in pairs if str(key).isascii() and str(key).isdigit() and len(str(key)) < 6}
    if not by_id or len(by_id) < len(content) or not all(isinstance(name, str) for name in by_id.values()):
        raise DataError(f'{path}: is not an object of class names by id, such as {{"0": "background", "1": "leaf"}}.')
    if set(by_id) != set(range(len(by_id))):
        raise DataError(f"{path}: its ids are not 0 to {len(by_id) - 1}, each once. Correct it, or remove the file.")
    return [by_id[i] for i in range(len(by_id))]
