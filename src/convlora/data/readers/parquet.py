"""Parquet tables of images and masks: as paths, as the bytes of image files, or as the hub stores both."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convlora.data.extras import need
from convlora.data.pixels.decoding import IMAGE_SUFFIXES
from convlora.data.readers.annotated import settle_splits, split_of
from convlora.data.readers.columns import NAMES_FILE, GridMask, names_format, pick_columns, read_names_file, reason
from convlora.data.readers.embedded import EmbeddedImage, EmbeddedMask
from convlora.data.readers.found import FoundData
from convlora.data.samples import SPLITS, Sample, first_few
from convlora.data.settings import DataSettings
from convlora.data.sources import ImageSource, MaskSource
from convlora.errors import ConvloraError, DataError, ImageError, PairingError

_KEPT = 256_000_000
"""Bytes of decoded columns that a process keeps; the largest part of a table comes on top."""
_MOST_ROWS = 10_000_000
_IMAGE_KINDS = ("path", "bytes", "struct")


@dataclass(frozen=True)
class ParquetCell:
    """One value of a table; see `convlora.data.readers.embedded.Cell` and `convlora.data.readers.columns.Grid`."""

    path: Path
    column: str
    group: int
    """Part of the table (row group) that it is in."""
    place: int
    """Row in this part."""
    row: int
    """Row in the table, from 0; for messages."""

    def __str__(self) -> str:
        return f"{self.path}, row {self.row}, {self.column}"

    def rows(self) -> object:
        """The value as Python has it.

        Raises:
            ImageError: The table has changed, or cannot be read any more.
        """
        try:
            return _COLUMNS.get(self.path, self.group, self.column)[self.place].as_py()
        except Exception as error:  # Arrow's own, OSError, IndexError
            raise ImageError(f"{self}: cannot be read ({reason(error)}).") from error

    def data(self) -> bytes:
        """The bytes of the image file in it, or of that at the path in it."""
        value: Any = self.rows()
        inner, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if isinstance(inner, bytes):
            return inner
        raise ImageError(f"{self}: is empty{f' but for the path {path!r}' if path else ''}; remove the row.")


def recognise(images: Path, masks: Path | None) -> str | None:
    """Why this may be such a data set; None if it is not."""
    if masks is not None:
        return None
    if images.suffix.lower() == ".parquet" and images.is_file():
        return f"{images} is a Parquet file"
    folders = [images, images / "data"] if images.is_dir() else []
    files = [file for folder in folders for file in sorted(folder.glob("*.parquet"))]
    return f"{files[0]} is a Parquet file" if files else None


def read(settings: DataSettings) -> FoundData:
    """Samples of all rows of one table or of all tables in a folder.

    Splits are those of the column split, else those that the files are named by.

    Raises:
        DataError: A table cannot be read, or a row has no image or mask.
        SettingsError: Which columns are meant is not clear, or pyarrow is missing.
    """
    root = Path(settings.images)
    if root.is_file():
        paths = [root]
    else:
        paths = sorted({file for folder in (root, root / "data") for file in folder.glob("*.parquet")})
    if settings.masks is not None or not paths:
        what = "the masks are a column of the table" if paths else "there is no .parquet file in it"
        raise PairingError(f"{root}: {what}; give a Parquet file, or a folder of some, as images alone.")
    samples: list[Sample] = []
    for path in paths:
        samples += _table_samples(path, settings, several=len(paths) > 1)
    names_file = (root if root.is_dir() else root.parent) / NAMES_FILE
    labels = names_format(read_names_file(names_file), settings, names_file) if names_file.is_file() else None
    settled, notes = settle_splits(samples)
    return FoundData(settled, labels, notes=notes)


def _table_samples(path: Path, settings: DataSettings, *, several: bool) -> Iterator[Sample]:
    parquet = need("pyarrow.parquet", "datasets", "reading Parquet")
    try:
        with parquet.ParquetFile(path) as file:
            kinds = {field.name: _kind(field.type) for field in file.schema_arrow}
            columns = [name for name, kind in kinds.items() if kind in _IMAGE_KINDS]
            grids = [name for name, kind in kinds.items() if kind == "grid"]
            image, mask = pick_columns(columns, [*columns, *grids], settings)
            plain = {name.lower(): name for name in kinds if name.lower() in ("split", "group")}
            _require_plain(
                path, {field.name: field.type for field in file.schema_arrow if field.name in plain.values()}
            )
            counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            _require_rows(path, counts)
            wanted = [*plain.values(), *(name for name in (image, mask) if kinds[name] == "path")]
            values = file.read(columns=wanted).to_pylist() if wanted else [{}] * sum(counts)
    except ConvloraError:
        raise
    except Exception as error:  # Arrow raises its own and many others on hostile bytes
        raise DataError(f"{path}: not a whole Parquet file ({reason(error)}).") from error
    if len(values) != sum(counts):
        raise DataError(f"{path}: its parts have {sum(counts)} rows, its columns {len(values)}. Write it again.")
    missing: list[str] = []
    strangers = dict[str, None]()
    row = 0
    for group, count in enumerate(counts):
        for place in range(count):
            value = values[row]
            places = {name: ParquetCell(path, name, group, place, row) for name in (image, mask)}
            files = {name: _file(path.parent, value.get(name), kinds[name]) for name in (image, mask)}
            missing += [str(file) for file in files.values() if file is not None and not _usable(file)]
            name = f"{path.stem}-{row:06d}" if several else f"{row:06d}"
            split, together = (
                str(value[plain[key]]) if value.get(plain.get(key)) not in (None, "") else None
                for key in ("split", "group")
            )
            if split is not None and split_of(split) is None:
                strangers.setdefault(split)
            yield Sample(
                name,
                _image(files[image], places[image]),
                _mask(files[mask], places[mask], kinds[mask]),
                split_of(split) if split is not None else split_of(path.stem),
                together,
            )
            row += 1
    if strangers:
        raise PairingError(
            f"{path}: {len(strangers)} splits other than {', '.join(SPLITS)}: {first_few(strangers)}. Correct the "
            "column split, or remove it."
        )
    if missing:
        raise PairingError(
            f"{path}: {len(missing)} of the paths in it lead to no image file ({' '.join(IMAGE_SUFFIXES)}): "
            f"{first_few(missing)}. They are relative to the table's folder."
        )


def _require_plain(path: Path, types: dict[str, Any]) -> None:
    """Refuse columns of splits and groups that are neither text nor whole numbers: images must not part silently."""
    arrow = need("pyarrow", "datasets", "reading Parquet").types
    for name, type_ in types.items():
        inner = type_.value_type if arrow.is_dictionary(type_) else type_  # so pandas writes categories
        if not (arrow.is_string(inner) or arrow.is_large_string(inner) or arrow.is_integer(inner)):
            raise DataError(f"{path}: its column {name} is of type {type_}, but must be text or whole numbers.")


def _require_rows(path: Path, counts: list[int]) -> None:
    if not 0 < sum(counts) <= _MOST_ROWS or min(counts) < 0:
        raise DataError(f"{path}: has {sum(counts)} rows; 1 to {_MOST_ROWS} can be.")


def _kind(type_: Any) -> str | None:
    """path, bytes, struct or grid; None if a column of this type is no image and no mask."""
    types = need("pyarrow", "datasets", "reading Parquet").types
    type_ = getattr(type_, "storage_type", type_)  # of an extension type
    if types.is_string(type_) or types.is_large_string(type_):
        return "path"
    if types.is_binary(type_) or types.is_large_binary(type_):
        return "bytes"
    if types.is_struct(type_):
        return "struct" if {"bytes", "path"} <= {field.name for field in type_} else None
    if types.is_list(type_) or types.is_large_list(type_):
        inner = type_.value_type
        return "grid" if types.is_list(inner) or types.is_large_list(inner) else None
    return None


def _file(folder: Path, value: Any, kind: str | None) -> Path | None:
    """The file that a path leads to; None if the bytes are in the table."""
    return folder / str(value or "") if kind == "path" else None


def _usable(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()


def _image(file: Path | None, cell: ParquetCell) -> ImageSource:
    return EmbeddedImage(cell) if file is None else file


def _mask(file: Path | None, cell: ParquetCell, kind: str | None) -> MaskSource:
    if kind == "grid":
        return GridMask(cell)
    return EmbeddedMask(cell) if file is None else file


class _Columns:
    """Columns of row groups, the latest ones kept, because reading one value of a table takes reading such a column."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Path, int, int, str], Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: Path, group: int, column: str) -> Any:
        """A column of a row group as an Arrow array."""
        key = (path, path.stat().st_mtime_ns, group, column)
        with self._lock:
            if key not in self._kept:
                parquet = need("pyarrow.parquet", "datasets", "reading Parquet")
                with parquet.ParquetFile(path) as file:
                    self._kept[key] = file.read_row_group(group, columns=[column]).column(0)
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(array.nbytes for array in self._kept.values()) > _KEPT:
                self._kept.popitem(last=False)
            return self._kept[key]


_COLUMNS = _Columns()
