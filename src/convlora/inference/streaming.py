"""Rasters too large for memory: read, segmented and written in windows, and continued where a run was stopped."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from convlora.data.pixels.windows import Box, read_window
from convlora.data.scientific.geotiff import GeoImage
from convlora.data.settings import ImageLimits
from convlora.errors import OutputError
from convlora.files import output_errors, replacing, write_json
from convlora.inference.georeferenced import no_data_of
from convlora.inference.predictor import Predictor
from convlora.sam.tiling import Box as Slices
from convlora.sam.tiling import tile_starts

_READ_BYTES = 200_000_000  # of pixels while they are decoded; tiles of one row mostly lie in one read
_ROWS = 256  # whose classes are decided at a time, because the intermediate results are 64-bit
_ABOUT = "about.json"


def count_tiles(size: tuple[int, int], tile: int, overlap: float) -> tuple[int, int]:
    """Rows and columns of tiles of a raster (H, W)."""
    rows, columns = (len(tile_starts(side, min(tile, side), overlap)) for side in size)
    return rows, columns


def predict_bands(
    predictor: Predictor,
    image: GeoImage,
    folder: Path,
    about: dict[str, Any],
    *,
    batch_size: int,
    count: Callable[[int], None],
) -> Callable[[], Iterator[np.ndarray]]:
    """Segment a raster into a folder of bands, one a row of tiles; those that are there already are kept.

    Memory holds one row of tiles: their logits and weights, 4 bytes each, and 200 MB of the image at most.

    Args:
        predictor: The tuned model; its processor has a tile.
        image: A raster that is larger than a tile.
        folder: Hidden, beside the results. Each band in it is whole or absent.
        about: What the bands depend on, as JSON. Bands of anything else are deleted.
        batch_size: Tiles that are segmented at a time.
        count: Called with the number of tiles that are being done, or are there already; they add up to all.

    Returns:
        A function that reads the bands from top to bottom: class ids (n, W) uint8, with `NO_DATA` where the raster
        holds none; int32 bit fields if the predictor is multilabel, with `IGNORED` there.

    Raises:
        ImageError: The raster cannot be read.
        OutputError: The folder cannot be written.
    """
    processor = predictor.processor
    size = image.stack.size
    if processor.tile is None:
        raise ValueError("a raster is predicted in windows by a processor with a tile")
    rows, columns = count_tiles(size, processor.tile, processor.overlap)
    kind = np.dtype(np.int32 if predictor.multilabel else np.uint8)
    files = [folder / f"{i:06d}" for i in range(rows)]
    with output_errors(folder):
        _keep_own(folder, about)
        first = next((i for i, file in enumerate(files) if not file.is_file()), rows)
    count(first * columns)
    if first < rows:
        reader = _Reader(image, processor.channels)
        top = tile_starts(size[0], min(processor.tile, size[0]), processor.overlap)[first]

        def read(boxes: Sequence[Slices]) -> list[np.ndarray]:
            tiles = [reader.read(box) for box in boxes]
            count(sum(rows.start >= top for rows, _ in boxes))  # the tiles above reach into the first band
            return tiles

        bands = predictor.bands(read, size, batch_size=batch_size, first=first)
        for file, (top, logits) in zip(files[first:], bands, strict=True):
            values = _decide(predictor, logits, kind)
            _mark_no_data(image, top, values)
            with replacing(file) as temporary:
                temporary.write_bytes(zlib.compress(values.tobytes(), 1))
    return lambda: (_read_band(file, kind, size[1]) for file in files)


def _read_band(file: Path, kind: np.dtype, width: int) -> np.ndarray:
    try:
        return np.frombuffer(zlib.decompress(file.read_bytes()), kind).reshape(-1, width)
    except (OSError, ValueError, zlib.error) as error:
        raise OutputError(f"{file} cannot be read again ({error}). Remove its folder, and start again.") from error


def _keep_own(folder: Path, about: dict[str, Any]) -> None:
    """Leave a folder that holds bands of what `about` says, or none."""
    try:
        same = json.loads((folder / _ABOUT).read_text(encoding="utf-8")) == json.loads(json.dumps(about))
    except (FileNotFoundError, ValueError):
        same = False
    if not same:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_json(folder / _ABOUT, about)


def _decide(predictor: Predictor, logits: Tensor, kind: np.dtype) -> np.ndarray:
    """Class ids or bit fields (n, W) of a band's logits (k, n, W)."""
    values = np.empty(tuple(logits.shape[1:]), dtype=kind)
    for top in range(0, len(values), _ROWS):
        values[top : top + _ROWS] = predictor.processor.classes_of(logits[:, top : top + _ROWS]).numpy()
    return values


def _mark_no_data(image: GeoImage, top: int, values: np.ndarray) -> None:
    """Write `NO_DATA`, or `IGNORED`, into the rows (n, W) from `top` on where the raster holds no data."""
    height, width = values.shape
    step = max(1, _READ_BYTES // (_bytes_a_pixel(image, None) * height))
    for left in range(0, width, step):
        part = values[:, left : left + step]
        valid = image.valid(top, left, *part.shape)
        if valid is not None:
            part[~valid] = no_data_of(values)


def _bytes_a_pixel(image: GeoImage, channels: int | None) -> int:
    """What decoding takes: the stored values, a copy of them in another order, and what they become."""
    stored = image.stack.channels * np.dtype(image.stack.dtype).itemsize
    return 2 * stored + (3 if channels is None else 4 * channels)


class _Reader:
    """Tiles of an image, one after the other from left to right, of which as many are decoded together as have room.

    A file that is stored in rows would else be decoded as often as there are tiles in a row.
    """

    def __init__(self, image: GeoImage, channels: int | None) -> None:
        self.image = image
        self.channels = channels
        self.box = Box(0, 0, 0, 0)
        self.pixels = np.zeros((0, 0, 3), dtype=np.uint8)
        self.most_pixels = _READ_BYTES // _bytes_a_pixel(image, channels)

    def read(self, box: Slices) -> np.ndarray:
        """The pixels of rows and columns: (h, w, 3), or raw channels."""
        rows, columns = box
        height, width = rows.stop - rows.start, columns.stop - columns.start
        held = self.box
        inside = held.left <= columns.start and columns.stop <= held.left + held.width
        if not (inside and held.top == rows.start and held.height == height):
            room = max(width, self.most_pixels // height)
            self.pixels = np.zeros((0, 0, 3), dtype=np.uint8)  # so that not both are in memory
            self.box = Box(rows.start, columns.start, height, min(room, self.image.stack.size[1] - columns.start))
            limits = ImageLimits(max_pixels=self.box.height * self.box.width)
            self.pixels = read_window(self.image, self.box, limits, self.channels)
        left = columns.start - self.box.left
        return self.pixels[:, left : left + width]
