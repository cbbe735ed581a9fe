"""How long a raster larger than memory takes, and how much memory: `convlora predict`, measured from outside.

    python -m benchmarks.huge_raster [--sides 2000 5000 20000] [--output benchmarks/results/huge_raster.json]

The raster is made of the demo's microscope images, turned and mirrored at random: 8-bit RGB, deflate, in blocks of
512 x 512 pixels. The model is sam-tiny with an adapter of a few steps, which sees tiles of 1024 pixels at 512 pixels;
time and memory do not depend on how good it is. All sides are predicted in windows, which by itself only rasters of
more than 64 megapixels are. The memory is the resident set's peak of the whole command; the time begins with it, too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

from benchmarks.machine import describe
from convlora.cli.demo import SAMPLES
from convlora.inference.streaming import count_tiles

COMMAND = str(Path(sys.executable).with_name("convlora"))
TILE = 1024
SEEN_AT = 512
OVERLAP = 0.25
BLOCK = 512


def make_raster(path: Path, side: int, dtype: str = "uint8") -> None:
    """Write the raster of a side in pixels, a row of blocks at a time."""
    images = [np.asarray(Image.open(file).convert("RGB")) for file in sorted((SAMPLES.parent / "images").glob("*.png"))]
    rng = np.random.default_rng(0)
    profile = {
        **{"driver": "GTiff", "height": side, "width": side, "count": 3, "dtype": dtype, "photometric": "RGB"},
        **{"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "interleave": "pixel", "compress": "deflate"},
        **{"crs": "EPSG:32616", "transform": rasterio.transform.from_origin(500_000, 4_000_000, 0.5, 0.5)},
    }
    size = len(images[0])
    with rasterio.Env(GDAL_CACHEMAX=64), rasterio.open(path, "w", **profile) as raster:
        for top in range(0, side, BLOCK):
            turned = [np.rot90(images[i % len(images)], i // len(images)) for i in range(4 * len(images))]
            chosen = rng.integers(len(turned), size=(-(-BLOCK // size), -(-side // size)))
            rows = np.concatenate([np.concatenate([turned[i] for i in row], axis=1) for row in chosen])
            rows = rows[: min(BLOCK, side - top), :side].astype(dtype)
            window = ((top, top + len(rows)), (0, side))
            raster.write(np.moveaxis(rows, -1, 0), window=window)


def train(run: Path) -> None:
    options = ["--image_size", str(SEEN_AT), "--tile", str(TILE), "--overlap", str(OVERLAP), "--max_steps", "8"]
    command = [COMMAND, "train", "--images", str(SAMPLES), "--output", str(run), *options]
    subprocess.run(command, check=True, capture_output=True)


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds that a command takes, and its peak memory in GiB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
        time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return time.perf_counter() - start, peak / 2**20


def predict(run: Path, raster: Path, output: Path, *options: str) -> dict[str, float]:
    """Predict a raster, look at the mask's place, and say what it took."""
    command = [COMMAND, "predict", str(run), str(raster), "--output", str(output), "--max_megapixels", "2", *options]
    seconds, gib = measured(command)
    with rasterio.open(raster) as image, rasterio.open(output / raster.name) as mask:
        if (mask.shape, mask.crs, mask.transform) != (image.shape, image.crs, image.transform):
            raise RuntimeError("the mask does not lie where the raster does")
        rows, columns = count_tiles(image.shape, TILE, OVERLAP)
        foreground = sum(int((mask.read(1, window=window) == 1).sum()) for _, window in mask.block_windows(1))
        share = foreground / (mask.width * mask.height)
    return {
        "peak GiB": round(gib, 3),
        "seconds": round(seconds, 1),
        "tiles": rows * columns,
        "tiles a second": round(rows * columns / seconds, 2),
        "raster MB": round(raster.stat().st_size / 1e6, 1),
        "mask MB": round((output / raster.name).stat().st_size / 1e6, 2),
        "foreground share": round(share, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/huge_raster.json"))
    parser.add_argument("--sides", type=int, nargs="+", default=[2_000, 5_000, 20_000])
    parser.add_argument("--dtype", choices=["uint8", "uint16", "float32"], default="uint8")
    parser.add_argument("--polygons", choices=["geojson", "gpkg"])
    parser.add_argument("--folder", type=Path, help="where temporary files go, 4 bytes a pixel at most")
    arguments = parser.parse_args()
    options = ["--polygons", arguments.polygons] if arguments.polygons else []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        train(folder / "run")
        table = {}
        for side in arguments.sides:
            raster = folder / f"{side}.tif"
            make_raster(raster, side, arguments.dtype)
            table[f"{side} x {side}"] = predict(folder / "run", raster, folder / f"masks-{side}", *options)
            print(json.dumps({side: table[f"{side} x {side}"]}), flush=True)
            raster.unlink()
    result = {
        "machine": describe(),
        "raster": f"{arguments.dtype} RGB, deflate, blocks of {BLOCK}",
        "model": f"sam-tiny and its adapter, tiles of {TILE} px seen at {SEEN_AT} px, overlap {OVERLAP}",
        "options": options,
        "by side": table,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
