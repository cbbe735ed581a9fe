"""Rasters with a place on earth: GeoTIFF and cloud-optimised GeoTIFF."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convlora.data.extras import need
from convlora.data.labels.format import NO_DATA
from convlora.data.pixels.decoding import require_allowed_size
from convlora.data.pixels.masks import one_value_a_pixel, read_mask
from convlora.data.scientific.geometry import RasterGeometry
from convlora.data.scientific.parts import StackImage, as_rgb, channels_last
from convlora.data.scientific.stacks import quiet, reading, stride
from convlora.data.settings import ImageLimits
from convlora.data.sources import MaskSource
from convlora.errors import ImageError

_MOST_BANDS = 1024
_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
_MOST_BLOCK_BYTES = 1 << 28
Box = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""


@dataclass(frozen=True)
class GeoRaster:
    """See `convlora.data.scientific.stacks.Stack`."""

    path: Path
    size: tuple[int, int]
    channels: int
    dtype: str
    rgb: tuple[int, int, int] | None
    palette: tuple[tuple[int, int, int], ...] | None = field(repr=False)
    mask_problem: str | None
    nodata: float | None
    """Value of pixels without data, as declared."""
    all_valid: bool
    """Whether no pixel is declared to be without data."""
    crs: str | None = field(repr=False)
    transform: tuple[float, float, float, float, float, float] = field(repr=False)
    alpha: bool = False
    """Whether a further band holds the opacity; `channels` does not count it."""
    inverted: bool = False
    """Whether white is stored as 0."""
    count: int = 1
    unit: str = ""

    @property
    def bits(self) -> int:
        """Those of the type."""
        return 8 * np.dtype(self.dtype).itemsize

    @property
    def may_lack_data(self) -> bool:
        """Whether pixels may be without data: declared so, or NaN."""
        return not self.all_valid or np.dtype(self.dtype).kind == "f"

    def page(self, index: int, limits: ImageLimits) -> np.ndarray:
        """All values (H, W, C)."""
        require_allowed_size(self.path, *self.size, limits)
        return self.window((0, 0, *self.size))[0]

    def window(self, box: Box, *, each_band: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
        """Values (h, w, C) of a part of the raster, and which of its pixels hold data, (h, w) bool; None if all do.

        A pixel holds data if any band of it does; with `each_band`, the second is (h, w, C).

        Raises:
            ImageError: Not readable, or the box is not within the raster.
        """
        top, left, height, width = box
        if not (0 <= top < top + height <= self.size[0] and 0 <= left < left + width <= self.size[1]):
            raise ImageError(f"{self.path}: rows {top}+{height}, columns {left}+{width} are not within {self.size}.")
        with reading(self.path, "GeoTIFF"), opened(self.path) as dataset:
            window = ((top, top + height), (left, left + width))
            return self._read(dataset, window=window, out_shape=None, each_band=each_band)

    def sample(self, limits: ImageLimits) -> np.ndarray:
        """Values (n, C) of pixels with data: of all rows and columns, or of every n-th."""
        height, width = self.size
        step = stride(1, height, width)
        if step == 1:
            values, valid = self.window((0, 0, height, width))
        else:
            with reading(self.path, "GeoTIFF"), opened(self.path) as dataset:
                shape = (math.ceil(height / step), math.ceil(width / step))
                values, valid = self._read(dataset, window=None, out_shape=shape)
        flat = values.reshape(-1, self.channels)
        return flat if valid is None else flat[valid.ravel()]

    def in_hounsfield_units(self, limits: ImageLimits) -> bool:
        """No."""
        return False

    def geometry(self, index: int) -> RasterGeometry:
        """Its place on earth."""
        return RasterGeometry(self.path, self.size, self.crs, self.transform)

    def _read(
        self, dataset: Any, *, window: Any, out_shape: tuple[int, int] | None, each_band: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        bands = list(range(1, self.channels + 1))
        shape = None if out_shape is None else (len(bands), *out_shape)
        values = np.moveaxis(dataset.read(bands, window=window, out_shape=shape, out_dtype=self.dtype), 0, -1)
        valid = None
        if not self.all_valid and each_band:
            valid = np.moveaxis(dataset.read_masks(bands, window=window, out_shape=shape), 0, -1) > 0
        elif not self.all_valid:
            valid = dataset.dataset_mask(window=window, out_shape=out_shape) > 0
        if values.dtype.kind == "f":
            missing = np.isnan(values) if each_band else np.isnan(values).all(axis=-1)
            valid = ~missing if valid is None else valid & ~missing
        if self.inverted:
            values = np.iinfo(values.dtype).max - values
        return values, None if valid is None or valid.all() else valid


def open_geotiff(path: Path, limits: ImageLimits) -> GeoRaster:
    """Read the header of a GeoTIFF.

    Raises:
        ImageError: Not readable, of several pages, or of values that are no real numbers.
        SettingsError: rasterio is not installed.
    """
    with reading(path, "GeoTIFF"), opened(path) as dataset:
        enums = need("rasterio.enums", "geo", "reading GeoTIFF")
        height, width = int(dataset.height), int(dataset.width)
        if height < 1 or width < 1:
            require_allowed_size(path, height, width, limits)
        colours = list(dataset.colorinterp)
        alpha = dataset.count > 1 and colours[-1] == enums.ColorInterp.alpha
        channels = dataset.count - alpha
        types = set(dataset.dtypes[:channels])
        _refuse(path, dataset, channels, types)
        paletted = channels == 1 and colours[0] == enums.ColorInterp.palette
        inverted = dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
        if inverted and not types <= {"uint8", "uint16"}:
            raise ImageError(f"{path}: stores white as 0 in {types.pop()}; save it again with black as 0.")
        flags = [set(band) for band in dataset.mask_flag_enums[:channels]]
        return GeoRaster(
            path=path,
            size=(height, width),
            channels=channels,
            dtype=np.result_type(*types).name,
            rgb=_colours(colours[:channels], enums.ColorInterp),
            palette=_palette(dataset) if paletted else None,
            mask_problem="stores white as 0" if inverted else None,
            nodata=None if dataset.nodata is None else float(dataset.nodata),
            all_valid=all(enums.MaskFlags.all_valid in band for band in flags) and not alpha,
            crs=dataset.crs.to_wkt() if dataset.crs else None,
            transform=tuple(float(value) for value in tuple(dataset.transform)[:6]),  # type: ignore[arg-type]
            alpha=alpha,
            inverted=inverted,
        )


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The dataset of rasterio; only GDAL's driver of GeoTIFF is asked, and only for local files."""
    rasterio = need("rasterio", "geo", "reading GeoTIFF")
    quiet("rasterio")
    with path.open("rb"):  # a message of the system if it cannot be read
        pass
    masked = path.with_name(f"{path.name}.msk").is_file()  # beside it nothing else changes what a raster holds
    with (
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="FALSE" if masked else "EMPTY_DIR", GTIFF_SRS_SOURCE="GEOKEYS"),
        rasterio.open(os.fspath(path.absolute()), driver="GTiff", sharing=False) as dataset,
    ):
        yield dataset


def _refuse(path: Path, dataset: Any, channels: int, types: set[str]) -> None:
    block_height, block_width = dataset.block_shapes[0]
    block = block_height * block_width * max(np.dtype(t).itemsize if t in _TYPES else 16 for t in types) * channels
    if not 1 <= channels <= _MOST_BANDS:
        raise ImageError(f"{path}: {channels} bands are not 1 to {_MOST_BANDS}.")
    if not types <= set(_TYPES):
        raise ImageError(f"{path}: values of type {', '.join(sorted(types))} cannot be shown; save real numbers.")
    if len(types) > 1 and np.result_type(*types).kind == "f" and any("64" in name for name in types):
        raise ImageError(f"{path}: bands of types {', '.join(sorted(types))} do not fit one type; save one of them.")
    if block > _MOST_BLOCK_BYTES:
        raise ImageError(
            f"{path}: is stored in blocks of {block / 1e6:.0f} MB, which must be decoded whole; "
            "save it in tiles (gdal_translate -co TILED=YES)."
        )


def _colours(colours: list[Any], kinds: Any) -> tuple[int, int, int] | None:
    """Numbers of the red, green and blue band; three bands without a meaning are taken for these, in this order."""
    if len(colours) == 1:
        return (0, 0, 0)
    wanted = (kinds.red, kinds.green, kinds.blue)
    if all(colours.count(kind) == 1 for kind in wanted):
        return tuple(colours.index(kind) for kind in wanted)  # type: ignore[return-value]
    return (0, 1, 2) if len(colours) == 3 else None


def _palette(dataset: Any) -> tuple[tuple[int, int, int], ...]:
    table = dataset.colormap(1)
    return tuple(tuple(table.get(value, (0, 0, 0))[:3]) for value in range(max(table) + 1))


@dataclass(frozen=True)
class GeoImage(StackImage):
    """A raster as an image; pixels without data are black, and NaN among raw channels."""

    stack: GeoRaster

    def read_image(self, limits: ImageLimits) -> np.ndarray:
        """Its pixels through the window: uint8 (H, W, 3)."""
        height, width = self.size(limits)
        return self.read_window(0, 0, height, width, limits)

    def read_window(self, top: int, left: int, height: int, width: int, limits: ImageLimits) -> np.ndarray:
        """The pixels of a part of it, as in the whole image: uint8 (h, w, 3).

        Raises:
            ImageError: Not readable, not within the image, or the part is beyond the limits.
        """
        require_allowed_size(self.path, height, width, limits)
        values, valid = self.stack.window((top, left, height, width))
        pixels = as_rgb(self, self.stack, values, self.intensity, limits)
        if valid is not None:
            pixels[~valid] = 0
        return pixels

    def valid(self, top: int, left: int, height: int, width: int) -> np.ndarray | None:
        """Which pixels of a part of it hold data: bool (h, w); None if all do.

        Raises:
            ImageError: as `read_window`.
        """
        if self.stack.all_valid and np.dtype(self.stack.dtype).kind != "f":
            return None
        return self.stack.window((top, left, height, width))[1]

    def read_channels(self, limits: ImageLimits) -> np.ndarray:
        """The values (H, W, C) as stored; float32 with NaN where there is no data, if the file declares that."""
        height, width = self.size(limits)
        return self.read_channels_window(0, 0, height, width, limits)

    def read_channels_window(self, top: int, left: int, height: int, width: int, limits: ImageLimits) -> np.ndarray:
        """The values of a part of it, as in the whole image: (h, w, C).

        Raises:
            ImageError: as `read_window`.
        """
        require_allowed_size(self.path, height, width, limits)
        values, valid = self.stack.window((top, left, height, width), each_band=True)
        if self.stack.all_valid and valid is None:
            return channels_last(values, range(self.stack.channels))
        values = values.astype(np.float32)
        return values if valid is None else np.where(valid, values, np.float32(np.nan))


@dataclass(frozen=True)
class GeoMask:
    """A raster of class ids as a mask; pixels without data are ignored, unless 0 is declared to mean that."""

    raster: GeoRaster

    def __str__(self) -> str:
        return str(self.path)

    @property
    def path(self) -> Path:
        """The file."""
        return self.raster.path

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """Its values, and `NO_DATA`: int32 (H, W)."""
        return self.read_window(0, 0, *self.raster.size, limits)

    def read_window(self, top: int, left: int, height: int, width: int, limits: ImageLimits) -> np.ndarray:
        """The values of a part of it: int32 (h, w)."""
        require_allowed_size(self.path, height, width, limits)
        if self.raster.mask_problem is not None:
            raise ImageError(f"{self.path} {self.raster.mask_problem}, so its values are no class ids.")
        values, valid = self.raster.window((top, left, height, width))
        if valid is None or self.raster.nodata == 0:  # by which most programs mean the background
            return one_value_a_pixel(self, values)
        ids = np.where(valid[..., None], values, np.zeros((), values.dtype))
        result = one_value_a_pixel(self, ids)
        result[~valid] = NO_DATA
        return result


@dataclass(frozen=True)
class WhereData:
    """A mask whose pixels are ignored where its raster holds no data."""

    mask: MaskSource
    raster: GeoRaster

    def __str__(self) -> str:
        return str(self.mask)

    @property
    def path(self) -> Path:
        """The file of the mask."""
        return self.mask if isinstance(self.mask, Path) else self.mask.path

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """The mask's values, and `NO_DATA`: int32 (H, W)."""
        values = read_mask(self.mask, limits)
        if values.shape != self.raster.size:
            return values  # which the comparison of sizes reports
        return self._where_data(values, (0, 0, *self.raster.size))

    @property
    def reads_windows(self) -> bool:
        """Whether windows are read without decoding the whole mask."""
        return hasattr(self.mask, "read_window")

    def read_window(self, top: int, left: int, height: int, width: int, limits: ImageLimits) -> np.ndarray:
        """The values of a part of it: int32 (h, w)."""
        read = getattr(self.mask, "read_window", None)
        if read is None:
            return self.read_mask(limits)[top : top + height, left : left + width]
        return self._where_data(read(top, left, height, width, limits), (top, left, height, width))

    def _where_data(self, values: np.ndarray, box: Box) -> np.ndarray:
        _, valid = self.raster.window(box)
        return values if valid is None else np.where(valid, values, np.int32(NO_DATA))
