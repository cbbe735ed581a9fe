"""Mistakes that stop a check, in a set of a few small images."""

import numpy as np

from tests.data.files import noise, save

HALF = np.repeat([[0, 255]], 24, axis=0).reshape(6, 8).astype(np.uint8)


def mask_missing(folder):
    (folder / "masks" / "s1.png").unlink()


def image_twice(folder):
    save(folder / "images" / "s1.jpg", noise(6, 8))


def other_size(folder):
    save(folder / "masks" / "s1.png", HALF[:5])


def truncated(folder):
    path = folder / "images" / "s1.png"
    path.write_bytes(path.read_bytes()[:60])


def in_colour(folder):
    save(folder / "masks" / "s1.png", noise(6, 8))


def jpeg_masks(folder):
    for path in sorted((folder / "masks").iterdir()):
        save(path.with_suffix(".jpg"), np.kron(HALF, np.ones((4, 4), dtype=np.uint8)), quality=60)
        save(folder / "images" / path.name, noise(24, 32))
        path.unlink()


def unknown_values(folder):
    save(folder / "masks" / "s1.png", HALF // 255 * 9)


MISTAKES = (mask_missing, image_twice, other_size, truncated, in_colour, jpeg_masks, unknown_values)


def write(folder, mistake):
    """Four pairs with one mistake, below images/ and masks/."""
    for i in range(4):
        save(folder / "images" / f"s{i}.png", noise(6, 8, seed=i))
        save(folder / "masks" / f"s{i}.png", HALF)
    mistake(folder)
