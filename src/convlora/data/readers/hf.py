"""Data sets of the library `datasets`: a folder that it saved, or one on the Hugging Face hub."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convlora.data.extras import need
from convlora.data.readers.annotated import settle_splits, split_of
from convlora.data.readers.columns import NAMES_FILE, GridMask, names_format, pick_columns, read_names_file, reason
from convlora.data.readers.embedded import EmbeddedImage, EmbeddedMask
from convlora.data.readers.found import FoundData
from convlora.data.samples import Sample
from convlora.data.settings import HUB, DataSettings
from convlora.data.sources import MaskSource
from convlora.errors import ConvloraError, DataError, ImageError, SettingsError

_SAVED = ("dataset_dict.json", "dataset_info.json")
_REFERENCE = re.compile(
    r"hf:(?P<name>[\w.-]+/[\w.-]+|[\w.-]+)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?(\[:(?P<rows>\d{1,7})\])?"
)


@dataclass(frozen=True)
class HfCell:
    """One value of a data set; see `convlora.data.readers.embedded.Cell` and `convlora.data.readers.columns.Grid`."""

    source: str
    """A folder, or a name on the hub."""
    split: str
    column: str
    row: int

    @property
    def path(self) -> Path:
        """The folder, or the name."""
        return Path(self.source)

    def __str__(self) -> str:
        return f"{self.source}, {self.split} row {self.row}, {self.column}"

    def rows(self) -> object:
        """The value as Python has it.

        Raises:
            ImageError: It cannot be read any more.
        """
        try:
            return _columns(self.source, self.split, self.column)[self.row][self.column]
        except ConvloraError:
            raise
        except Exception as error:  # those of Arrow and of `datasets` have no common base
            raise ImageError(f"{self}: cannot be read ({reason(error)}).") from error

    def data(self) -> bytes:
        """The bytes of the image file."""
        value = self.rows()
        if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
            return value["bytes"]
        path = value.get("path") if isinstance(value, dict) else None
        if isinstance(path, str) and Path(path).is_file():
            return Path(path).read_bytes()
        raise ImageError(f"{self}: is empty{f'; its file {path} is not here' if path else ''}. Remove the row.")


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    if str(images).startswith(HUB):
        return f"{images} is a name on the hub"
    saved = (images / _SAVED[0]).is_file() or ((images / _SAVED[1]).is_file() and (images / "state.json").is_file())
    return f"{images} was saved by the library datasets" if saved and masks is None else None


def read(settings: DataSettings) -> FoundData:
    """Samples of all splits; images and masks are found by the columns' types and names.

    Raises:
        DataError: The data set cannot be loaded, or has no images.
        SettingsError: Which columns are meant is not clear, or the library is missing.
    """
    source = settings.images
    if settings.masks is not None:
        raise SettingsError(f"masks={settings.masks!r} is given, but the masks are a column of {source}; leave it out.")
    splits = _load(source)
    samples, notes = [], []
    names: list[str] | None = None
    for split, part in splits.items():
        images = [name for name, feature in part.features.items() if _is_image(feature)]
        grids = [name for name, feature in part.features.items() if _is_grid(feature)]
        image, mask = pick_columns(images, [*images, *grids], settings)
        names = names or _class_names(part.features[mask])
        groups = _groups(part) if "group" not in (image, mask) else [None] * len(part)
        for row, group in enumerate(groups):
            cell = HfCell(source, split, mask, row)
            masked: MaskSource = GridMask(cell) if mask in grids else EmbeddedMask(cell)
            drawn = EmbeddedImage(HfCell(source, split, image, row))
            samples.append(Sample(f"{split}-{row:06d}", drawn, masked, split_of(split), group))
        notes.append(f"{split}: {len(part)} rows; images are the column {image}, masks {mask}")
    if not samples:
        raise DataError(f"{source}: has no rows. Choose another data set.")
    file = None if names else _names_file(source)
    names = read_names_file(file) if file is not None else names
    labels = names_format(names, settings, source) if names else None
    settled, split_notes = settle_splits(samples)
    return FoundData(settled, labels, notes=notes + split_notes)


def _groups(part: Any) -> list[str | None]:
    """What each row must stay together with, such as a patient: the column group, if there is one."""
    if "group" not in part.features:
        return [None] * len(part)
    values = part.select_columns(["group"])[:]["group"]
    return [None if value in (None, "") else str(value) for value in values]


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _is_grid(feature: Any) -> bool:
    inner = getattr(feature, "feature", None)
    return type(feature).__name__ == "Array2D" or (inner is not None and getattr(inner, "feature", None) is not None)


def _class_names(feature: Any) -> list[str] | None:
    """Names of the values in a mask that is a table of class labels."""
    inner = getattr(getattr(feature, "feature", None), "feature", None)
    names = getattr(inner, "names", None)
    return list(names) if names else None


@functools.lru_cache(maxsize=4)
def _load(source: str) -> dict[str, Any]:
    """The splits of a data set, whose images stay encoded.

    Raises:
        DataError: It cannot be loaded.
        SettingsError: Its name is none, or the library is missing.
    """
    datasets = need("datasets", "datasets", "reading this data set")
    datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = False  # version 3 would ask whether to run the code of a data set
    reference = _REFERENCE.fullmatch(source) if source.startswith(HUB) else None
    if source.startswith(HUB) and reference is None:
        raise SettingsError(
            f"images={source!r} must be hf:OWNER/NAME, if need be with :CONFIG, @REVISION or [:ROWS] behind it."
        )
    try:
        found = _from_hub(datasets, reference) if reference else datasets.load_from_disk(source)
        splits = found if isinstance(found, dict) else {str(found.split or "all"): found}
        return {split: _encoded(datasets, part) for split, part in splits.items()}
    except Exception as error:  # of the network, the hub, Arrow and `datasets`, without a common base
        raise DataError(
            f"{source}: cannot be loaded ({reason(error)}). "
            + ("Check the name and the network; code of a data set is never run." if reference else "Save it again.")
        ) from error


def _from_hub(datasets: Any, reference: re.Match[str]) -> Any:
    rows = reference["rows"]
    found = datasets.load_dataset(
        reference["name"], reference["config"], revision=reference["revision"], streaming=rows is not None
    )
    if rows is None:
        return found
    parts = {}
    for split, part in found.items():  # only the first rows are fetched, and kept in memory
        features = part.features
        images = [name for name, feature in (features or {}).items() if _is_image(feature)]
        for name in images:
            part = part.cast_column(name, datasets.Image(decode=False))
        parts[split] = datasets.Dataset.from_list(list(part.take(int(rows))), features=part.features)
    return parts


def _encoded(datasets: Any, part: Any) -> Any:
    """A split whose images come as bytes, checked so that a damaged file cannot lead beyond its end."""
    part = part.with_format(None)
    for chunk in (chunk for column in part.data.columns for chunk in column.chunks):
        chunk.validate(full=True)
    for name, feature in part.features.items():
        if _is_image(feature):
            part = part.cast_column(name, datasets.Image(decode=False))
    return part


@functools.lru_cache(maxsize=64)
def _columns(source: str, split: str, column: str) -> Any:
    return _load(source)[split].select_columns([column])


def _names_file(source: str) -> Path | None:
    """The file of class names beside the data, if there is one."""
    if not source.startswith(HUB):
        file = Path(source) / NAMES_FILE
        return file if file.is_file() else None
    reference = _REFERENCE.fullmatch(source)
    hub = need("huggingface_hub", "datasets", "reading this data set")
    if reference is None:
        return None
    try:
        place = hub.hf_hub_download(reference["name"], NAMES_FILE, repo_type="dataset", revision=reference["revision"])
    except Exception:  # most data sets have none, and a network that fails shows when the data are read
        return None
    return Path(place)
