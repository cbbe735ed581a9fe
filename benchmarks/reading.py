"""How fast scientific images are read: seconds of the bare library over seconds of ours.

    python -m benchmarks.reading [--output benchmarks/results/reading.json]

Both sides decode the same file to arrays (H, W, C), alternately, in one process; the ratio is of medians. Ours gives
upright 8-bit RGB through the window, which the library alone does not; for values of more than 8 bits a second table
therefore lets the other side do this, too, in plain NumPy. Volumes are read whole, slice by slice.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import rasterio
import tifffile
from PIL import Image

from benchmarks.machine import describe
from benchmarks.timing import paired
from convlora.data.pixels.images import read_image
from convlora.data.readers.pairing import find_images
from convlora.data.scientific.expanding import Reading
from convlora.data.scientific.volume_cache import volumes

SIDE = 2048


def scene(height: int, width: int, bands: int) -> np.ndarray:
    """Smooth shapes with a little noise, (bands, H, W) in 0..1: compresses as photographs do."""
    rng = np.random.default_rng(0)
    coarse = rng.random((bands, height // 32 + 1, width // 32 + 1))
    smooth = np.stack(
        [np.asarray(Image.fromarray(band).resize((width, height), Image.Resampling.BICUBIC)) for band in coarse]
    )
    return (smooth + rng.normal(0, 0.01, smooth.shape)).clip(0, 1)


def geotiff(path: Path, dtype: str, bands: int, **options: object) -> None:
    values = (scene(SIDE, SIDE, bands) * (255 if dtype == "uint8" else 4000)).astype(dtype)
    transform = rasterio.transform.from_origin(500_000, 4_000_000, 1, 1)
    profile = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": bands, "dtype": dtype, "crs": "EPSG:32616"}
    with rasterio.open(path, "w", **profile, transform=transform, **options) as dataset:
        dataset.write(values)


def bare_geotiff(path: Path) -> Callable[[], np.ndarray]:
    def read() -> np.ndarray:
        with rasterio.open(path) as dataset:
            bands = dataset.read()
        return np.ascontiguousarray(np.moveaxis(bands, 0, -1))  # as every model takes pictures

    return read


def to_rgb(values: np.ndarray) -> np.ndarray:
    """Values (…, 1 or 3) through a window, as one writes it: uint8 (…, 3)."""
    seen = (np.clip(values.astype(np.float32) / 4000, 0, 1) * 255).round().astype(np.uint8)
    return np.repeat(seen, 3, axis=-1) if seen.shape[-1] == 1 else seen


def ours(path: Path) -> Callable[[], object]:
    samples = find_images(str(path), how=Reading(intensity="auto"))

    def read() -> None:
        for sample in samples:
            read_image(sample.image)

    return read


def rasters(folder: Path, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    tiled = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    cases = {
        "GeoTIFF uint8 RGB, deflate tiles": ("uint8", 3, {"compress": "deflate", "interleave": "pixel", **tiled}),
        "GeoTIFF uint8 RGB, LZW strips": ("uint8", 3, {"compress": "lzw", "interleave": "pixel"}),
        "GeoTIFF uint16 grey, deflate tiles": ("uint16", 1, {"compress": "deflate", "predictor": 2, **tiled}),
        "GeoTIFF uint16 RGB, deflate tiles": (
            "uint16",
            3,
            {"compress": "deflate", "predictor": 2, "interleave": "pixel", **tiled},
        ),
        "GeoTIFF uint8 RGB, not compressed": ("uint8", 3, {"interleave": "pixel", **tiled}),
    }
    table, with_window = {}, {}
    for number, (name, (dtype, bands, options)) in enumerate(cases.items()):
        path = folder / f"{number}.tif"
        geotiff(path, dtype, bands, **options)
        read = bare_geotiff(path)
        bare, own = paired(read, ours(path), rounds)
        table[f"{name}: rasterio / ours"] = bare / own
        if dtype == "uint16":
            bare, own = paired(lambda read=read: to_rgb(read()), ours(path), rounds)
            with_window[f"{name}: rasterio, NumPy / ours"] = bare / own
    return table, with_window


def pictures(folder: Path, rounds: int) -> dict[str, float]:
    """Pictures that Pillow decodes."""
    pixels = (np.moveaxis(scene(SIDE, SIDE, 3), 0, -1) * 255).astype(np.uint8)
    table = {}
    for suffix, options in (("png", {}), ("jpg", {"quality": 90}), ("tif", {"compression": "tiff_lzw"})):
        path = folder / f"plain.{suffix}"
        Image.fromarray(pixels).save(path, **options)
        bare, own = paired(lambda path=path: np.asarray(Image.open(path).convert("RGB")), ours(path), rounds)
        table[f"{suffix}: Pillow / ours"] = bare / own
    deep = folder / "deep.png"
    Image.fromarray((scene(SIDE, SIDE, 1)[0] * 4000).astype(np.uint16)).save(deep)
    bare, own = paired(lambda: np.asarray(Image.open(deep)), ours(deep), rounds)
    return table | {"png of 16-bit grey: Pillow / ours": bare / own}


def stacks(folder: Path, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    values = (scene(512, 512, 60) * 4000).astype(np.uint16)
    tifffile.imwrite(folder / "stack.tif", values, compression="zlib", predictor=True, photometric="minisblack")
    table, with_window = {}, {}

    def compare(name: str, library: str, read: Callable[[], np.ndarray], own_read: Callable[[], object]) -> None:
        bare, own = paired(read, own_read, rounds)
        table[f"{name}: {library} / ours"] = bare / own
        bare, own = paired(lambda: to_rgb(read()[..., None]), own_read, rounds)
        with_window[f"{name}: {library}, NumPy / ours"] = bare / own

    def whole_stack() -> np.ndarray:
        return tifffile.imread(folder / "stack.tif", maxworkers=1)

    compare("TIFF stack uint16, 60 pages, deflate", "tifffile", whole_stack, ours(folder / "stack.tif"))
    nibabel.Nifti1Image((values.transpose(2, 1, 0) - 1000).astype(np.int16), np.eye(4)).to_filename(folder / "v.nii.gz")

    def whole_volume() -> np.ndarray:
        return np.asarray(nibabel.load(folder / "v.nii.gz").dataobj)

    def every_slice() -> object:
        volumes.clear()
        return ours(folder / "v.nii.gz")()

    compare("NIfTI .nii.gz int16, 60 slices, unpacked anew each time", "nibabel", whole_volume, every_slice)
    series = folder / "series"
    series.mkdir()
    _write_series(series, values)
    files = sorted(series.iterdir())

    def whole_series() -> np.ndarray:
        return np.stack([pydicom.dcmread(file).pixel_array for file in files])

    compare("DICOM series of CT, 60 slices", "pydicom", whole_series, ours(series))
    return table, with_window


def _write_series(folder: Path, values: np.ndarray) -> None:
    from tests.data.scientific.makers import save_series

    save_series(folder, values, RescaleSlope=1, RescaleIntercept=-1024, BitsStored=12, HighBit=11)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/reading.json"))
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        of_rasters, rasters_seen = rasters(folder, arguments.rounds)
        of_stacks, stacks_seen = stacks(folder, arguments.rounds)
        table = of_rasters | pictures(folder, arguments.rounds) | of_stacks
        seen = rasters_seen | stacks_seen
    result = {
        "machine": describe(),
        "rounds": arguments.rounds,
        "speed against the bare library (1 is equal)": table,
        "median": statistics.median(table.values()),
        "speed against the bare library and a window in plain NumPy": seen,
        "median with a window": statistics.median(seen.values()),
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
