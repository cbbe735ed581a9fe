"""Images, random outlines and an oracle of the pixels inside of them, for the tests of annotation formats."""

import json
from fractions import Fraction

import numpy as np
from PIL import Image

from convlora.data.pixels.decoding import DEFAULT_LIMITS
from convlora.data.readers.finding import find_data
from convlora.data.settings import DataSettings


def write_image(path, height=20, width=30, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def found(images, masks=None, **settings):
    return find_data(DataSettings(images=str(images), masks=None if masks is None else str(masks), **settings))


def masks_of(data):
    return {sample.name: sample.mask.read_mask(DEFAULT_LIMITS) for sample in data.samples}


def star(rng, height, width, points=9, reach=0.3):
    """A ring that does not cross itself, around a place in the image: (points, 2)."""
    angles = (np.arange(points) + rng.uniform(0, 0.8, points)) / points * 2 * np.pi
    radii = rng.uniform(0.4, 1.0, points) * reach * min(height, width)
    centre = rng.uniform(0.2, 0.8, 2) * (width, height)
    return centre + np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def inside(rings, height, width):
    """Even-odd at the centres of the pixels, exactly, one by one: a ray to the left counts the edges it crosses."""
    exact = [[(Fraction(float(x)), Fraction(float(y))) for x, y in ring] for ring in rings]
    edges = [edge for ring in exact for edge in zip(ring, ring[1:] + ring[:1], strict=True)]
    mask = np.zeros((height, width), dtype=bool)
    for row in range(height):
        y = row + Fraction(1, 2)
        crossings = []
        for (x0, y0), (x1, y1) in edges:
            if (y0 <= y) != (y1 <= y):
                crossings.append(x0 + (y - y0) * (x1 - x0) / (y1 - y0))
        for column in range(width):
            mask[row, column] = sum(crossing <= column + Fraction(1, 2) for crossing in crossings) % 2
    return mask
