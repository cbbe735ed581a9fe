import math

import numpy as np
import pytest

from convlora.data.augmentation.augment import augment
from convlora.data.augmentation.settings import AugmentationSettings
from tests.data.files import noise

NOTHING = {
    "flip_horizontal": False,
    "flip_vertical": False,
    "rotate": 0.0,
    "scale": 0.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
}


def rng(seed=0):
    return np.random.default_rng(seed)


def settings(**values):
    return AugmentationSettings(**(NOTHING | values))


def disc(height, width, row, column, radius):
    rows, columns = np.mgrid[:height, :width] + 0.5
    return ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2).astype(np.uint8)


def centre(weights):
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]] + 0.5
    return np.array([(rows * weights).sum(), (columns * weights).sum()]) / weights.sum()


def test_nothing_changes_not_a_bit_without_settings():
    image, mask = noise(20, 31), noise(20, 31, 1)
    for seed in range(20):
        got_image, got_mask = augment(image, mask, settings(), rng(seed), 255)
        assert np.array_equal(got_image, image) and np.array_equal(got_mask, mask)


def test_flips_are_exact_and_come_in_half_of_the_cases():
    image, mask = noise(20, 31), noise(20, 31, 1)
    seen = {}
    for seed in range(400):
        got_image, got_mask = augment(image, mask, settings(flip_horizontal=True, flip_vertical=True), rng(seed), 255)
        flips = [(y, x) for y in (1, -1) for x in (1, -1) if np.array_equal(got_image, image[::y, ::x])]
        assert len(flips) == 1 and np.array_equal(got_mask, mask[:: flips[0][0], :: flips[0][1]])
        seen[flips[0]] = seen.get(flips[0], 0) + 1
    assert len(seen) == 4 and min(seen.values()) > 60  # 100 expected; 4.6 standard deviations


@pytest.mark.parametrize("seed", range(12))
def test_the_mask_stays_on_the_image(seed):
    """A large soft disc moves by the same amount in the image and in the mask."""
    height, width = 300, 400
    mask = disc(height, width, 130, 240, 60)
    image = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    got_image, got_mask = augment(
        image, mask, AugmentationSettings(**(NOTHING | {"rotate": 30, "scale": 0.3})), rng(seed), 255
    )
    ids = np.where(got_mask == 255, 0, got_mask)
    # The nearest pixel errs by at most half a pixel along the edge of 2 pi 60 pixels, at random: 0.3 * sqrt(377)
    # pixels of area at 60 pixels from the centre, over an area of 11310 pixels: 0.03 pixels, one standard deviation.
    assert np.abs(centre(got_image[..., 0].astype(float)) - centre(ids.astype(float))).max() < 0.1
    assert ((got_image[..., 0] > 127) != (ids == 1)).mean() < 1e-3


def origins(size, seed, rotate, scale):
    """Where each output pixel of an unflipped warp comes from, (x, y) in pixels, from the draws' documented order."""
    draws = rng(seed)
    draws.random(2)
    angle, zoom = draws.uniform(-1, 1, 2)
    angle, zoom = math.radians(rotate * angle), (1 + scale) ** zoom
    height, width = size
    rows, columns = np.mgrid[:height, :width] + 0.5
    x, y = columns - width / 2, rows - height / 2
    return (
        (math.cos(angle) * x + math.sin(angle) * y) / zoom + width / 2,
        (-math.sin(angle) * x + math.cos(angle) * y) / zoom + height / 2,
    )


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_image_pixels_come_from_where_the_geometry_says_to_a_hundredth_of_a_pixel(seed, axis):
    """A linear ramp, warped bilinearly, is the affine map itself; it is read back with least squares."""
    size, step = 512, 0.25
    rows, columns = np.mgrid[:size, :size] + 0.5
    ramp = (columns, rows)[axis] * step
    ramps = np.stack([ramp, 128 - ramp, ramp], -1)  # Pillow's rounding down cancels in the difference of two
    dithered = np.floor(ramps + rng(9).random(ramps.shape)).astype(np.uint8)  # unbiased in spite of 8 bits
    empty = np.zeros((size, size), dtype=np.uint8)
    got, mask = augment(dithered, empty, settings(rotate=20.0, scale=0.2), rng(seed), 255)
    want = origins((size, size), seed, 20.0, 0.2)
    inside = (mask == 0) & (np.minimum(*want) > 2) & (np.maximum(*want) < size - 2)
    seen = ((got[..., 0].astype(float) - got[..., 1] + 128) / (2 * step))[inside]
    design = np.stack([columns[inside] - size / 2, rows[inside] - size / 2, np.ones(inside.sum())], -1)
    *slopes, shift = np.linalg.lstsq(design, seen - want[axis][inside], rcond=None)[0]
    # dithering: 0.7 levels / (2 * 0.25 levels a pixel) / sqrt(180,000 pixels) = 0.003 pixels, one standard deviation
    assert abs(shift) < 0.01
    assert max(map(abs, slopes)) * size / 2 < 0.02


@pytest.mark.parametrize("size", [(5, 4096), (300, 200)])
def test_the_mask_is_the_nearest_pixel_of_the_double_precision_map(size):
    height, width = size
    mask = noise(height, width, 1) % 250
    _, got = augment(noise(height, width), mask, settings(rotate=0.5, scale=0.2), rng(3), 255)
    from_x, from_y = origins(size, 3, 0.5, 0.2)
    clear = (np.abs(from_x - np.rint(from_x)) > 0.001) & (np.abs(from_y - np.rint(from_y)) > 0.001)
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    columns_of, rows_of = (np.floor(c).astype(int).clip(0, n - 1) for c, n in ((from_x, width), (from_y, height)))
    want = np.where(inside, mask[rows_of, columns_of], 255)
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(got[clear], want[clear])


def test_outside_is_black_and_ignored_and_classes_are_never_invented():
    image, mask = np.full((40, 60, 3), 200, dtype=np.uint8), np.full((40, 60), 7, dtype=np.uint8)
    mask[:, 30:] = 3
    for seed in range(20):
        got_image, got_mask = augment(image, mask, settings(rotate=45, scale=0.5), rng(seed), 254)
        assert set(np.unique(got_mask)) <= {3, 7, 254} and got_mask.dtype == got_image.dtype == np.uint8
        assert got_image.shape == image.shape and got_mask.shape == mask.shape
        np.testing.assert_array_equal(got_image.any(axis=-1), got_mask != 254)


@pytest.mark.parametrize("seed", range(5))
def test_colours_follow_their_formulas_and_the_mask_stays(seed):
    image, mask = noise(12, 15) // 4 + 96, noise(12, 15, 1)  # mid-grey: nothing is clipped
    chosen = settings(brightness=0.2, contrast=0.3, saturation=0.4)
    got, got_mask = augment(image, mask, chosen, rng(seed), 255)
    draws = rng(seed)
    draws.random(2)
    brightness, contrast, saturation = 1 + np.array([0.2, 0.3, 0.4]) * draws.uniform(-1, 1, 5)[2:]
    want = image * brightness
    want = want.mean((0, 1)) @ [0.299, 0.587, 0.114] + contrast * (want - want.mean((0, 1)) @ [0.299, 0.587, 0.114])
    grey = (want @ [0.299, 0.587, 0.114])[..., None]
    want = grey + saturation * (want - grey)
    assert np.abs(got - want.clip(0, 255)).max() <= 0.501
    assert np.array_equal(got_mask, mask)


def test_the_number_of_draws_does_not_depend_on_the_settings():
    states = []
    for chosen in (settings(), AugmentationSettings()):
        generator = rng()
        augment(noise(8, 8), noise(8, 8, 1), chosen, generator, 255)
        states.append(generator.bit_generator.state)
    assert states[0] == states[1]


def test_zooms_are_symmetric_about_1():
    mask, image = disc(200, 200, 100, 100, 50), np.zeros((200, 200, 3), dtype=np.uint8)
    areas = []
    for seed in range(150):
        _, got = augment(image, mask, settings(scale=0.5), rng(seed), 255)
        areas.append((got == 1).sum() / mask.sum())
    zooms = np.sqrt(areas)
    assert 1 / 1.52 < zooms.min() < 0.7 and 1.45 < zooms.max() < 1.52
    assert abs(np.log(zooms).mean()) < 0.06  # standard error 0.02


def test_two_thousand_random_changes_invent_no_class_and_keep_landmarks_within_half_a_pixel():
    """A bright spot in the image and a disc in the mask, drawn around the same point, are still around one point."""
    seen = 0
    for seed in range(2000):
        draws = rng(seed)
        height, width = draws.integers(40, 90, 2)
        row, column = draws.uniform(12, height - 12), draws.uniform(12, width - 12)
        rows, columns = np.mgrid[:height, :width] + 0.5
        distance = (rows - row) ** 2 + (columns - column) ** 2
        spot = np.round(250 * np.exp(-distance / 8)).astype(np.uint8)
        ids = np.where(distance <= 25, 9, draws.choice([0, 3, 7], (height, width))).astype(np.uint8)
        changes = settings(
            flip_horizontal=bool(draws.integers(2)),
            flip_vertical=bool(draws.integers(2)),
            quarter_turns=bool(draws.integers(2)),
            rotate=draws.uniform(0, 180),
            scale=draws.uniform(0, 1),
            preset=draws.choice([None, "natural", "medical", "microscopy", "aerial", "none"]),
            gamma=0.0,
            noise=0.0,
            blur=0.0,
        )
        image, mask = augment(np.repeat(spot[..., None], 3, axis=2), ids, changes, rng(seed), 255)
        assert set(np.unique(mask)) <= {0, 3, 7, 9, 255}
        found = np.argwhere(mask == 9)
        if len(found) and found.min() >= 12 and (found.max(axis=0) < np.array(mask.shape) - 12).all():  # all of it
            seen += 1
            assert np.abs(centre(image[..., 0].astype(float)) - found.mean(axis=0) - 0.5).max() < 0.5, seed
    assert seen > 500
