"""Images and masks for the tests of tables."""

import io

import numpy as np
from PIL import Image

HEIGHT, WIDTH, ROWS = 12, 16, 7
_RNG = np.random.default_rng(0)
IMAGES = [_RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(ROWS)]
MASKS = [_RNG.integers(0, 3, (HEIGHT, WIDTH), dtype=np.uint8) for _ in range(ROWS)]


def png(array):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def pixels(data):
    """All images and masks of the samples, in their order."""
    from convlora.data.pixels.images import read_image
    from convlora.data.pixels.masks import read_mask

    return [read_image(s.image) for s in data.samples], [read_mask(s.mask) for s in data.samples]
