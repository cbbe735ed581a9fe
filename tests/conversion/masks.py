"""Masks of every shape, and samples made of them."""

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from convlora.conversion.convert import convert_samples
from convlora.conversion.settings import ConversionOptions
from convlora.data.labels.format import LabelFormat
from convlora.data.samples import Sample
from tests.data.files import noise

LABELS = LabelFormat(("background", "leaf", "stem & root"), "ids", 255)

# a ring with an island in its hole, a diagonal pair, a single pixel in a corner, and class 2 along the right border
PICTURE = np.array(
    [
        [1, 1, 1, 1, 1, 0, 2],
        [1, 0, 0, 0, 1, 0, 2],
        [1, 0, 1, 0, 1, 0, 2],
        [1, 0, 0, 0, 1, 0, 2],
        [1, 1, 1, 1, 1, 0, 2],
        [0, 0, 0, 0, 0, 1, 2],
        [2, 0, 0, 0, 0, 0, 2],
    ],
    dtype=np.uint8,
)


@st.composite
def masks(draw, classes=3):
    """Class ids uint8 (H, W): noise, which has holes, islands, diagonals and single pixels, or blocks of it."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.0, 0.2, 0.5, 0.7, 0.9, 1.0]))
    mask = np.where(rng.random((height, width)) < density, rng.integers(1, classes, (height, width)), 0)
    if draw(st.booleans()):
        mask = np.repeat(np.repeat(mask, 2, axis=0), 3, axis=1)
    return mask.astype(np.uint8)


def save_samples(folder, pictures, suffix=".png"):
    """Samples of images and masks in two folders."""
    samples = []
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for i, ids in enumerate(pictures):
        image, mask = folder / "images" / f"p{i}{suffix}", folder / "masks" / f"p{i}.png"
        Image.fromarray(noise(*ids.shape, seed=i)).save(image)
        Image.fromarray(ids).save(mask)
        samples.append(Sample(f"p{i}", image, mask))
    return samples


def convert(folder, pictures, target, labels=LABELS, **options):
    """Convert masks; return the output folder and the notes."""
    samples = save_samples(folder, pictures)
    notes = convert_samples(samples, labels, target, folder / "out", ConversionOptions(**options))
    return folder / "out", notes


def even_odd(rings, shape):
    """Pixels whose centres are inside an odd number of rings, by counting the edges to their right; bool (H, W)."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, dtype=bool)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 != y1:
                inside ^= ((y0 <= rows) != (y1 <= rows)) & (columns < x0 + (rows - y0) * (x1 - x0) / (y1 - y0))
    return inside
