import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlora.data.augmentation.augment import augment
from convlora.data.augmentation.changes import PRESETS
from convlora.data.augmentation.raw_levels import changed_levels
from convlora.data.augmentation.settings import AugmentationSettings

NOTHING = {"blur": 0.0, "brightness": 1.0, "contrast": 1.0, "gamma": 1.0, "noise": 0.0, "seed": 0}


def image(channels=5, size=(24, 31), seed=0, dtype="float32"):
    values = np.random.default_rng(seed).normal(size=(*size, channels)) * 20 + 1000 * np.arange(1, channels + 1)
    return values.astype(dtype)


def of(given, settings, seed, ignore=255):
    mask = np.zeros(given.shape[:2], np.uint8)
    return augment(given, mask, settings, np.random.default_rng(seed), ignore, raw=True)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_without_changes_not_a_bit_and_not_the_type_changes(dtype):
    given = image(2, dtype="int16").clip(0, 255).astype(dtype)
    assert changed_levels(given, **NOTHING) is given
    got, _ = of(given, AugmentationSettings(preset="none"), 0)
    assert got is given


def test_levels_follow_their_formulas_from_black_to_white():
    given = image()
    got = changed_levels(given, **(NOTHING | {"brightness": 1.2, "contrast": 0.7, "gamma": 1.5}))
    mean, std = given.astype(float).mean((0, 1)), given.astype(float).std((0, 1))
    level = (given - (mean - 2 * std)) / (4 * std) * 1.2
    level = level.mean((0, 1)) + (level - level.mean((0, 1))) * 0.7
    level = np.where((level > 0) & (level < 1), np.abs(level) ** 1.5, level)
    # float32 of values up to 5000: 2**-12 each
    np.testing.assert_allclose(got, level * 4 * std + mean - 2 * std, atol=1e-3)
    assert got.dtype == np.float32


def test_noise_has_the_asked_part_of_the_range_and_is_not_the_same_in_each_channel():
    given = image(3, (200, 200))
    noise = changed_levels(given, **(NOTHING | {"noise": 0.1, "seed": 3})) - given
    np.testing.assert_allclose(noise.std((0, 1)), 0.1 * 4 * given.std((0, 1)), rtol=0.03)
    assert np.abs(np.corrcoef(noise.reshape(-1, 3).T) - np.eye(3)).max() < 0.03


@pytest.mark.parametrize("preset", sorted(PRESETS))
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.25, 4.0, 1024.0]), shift=st.integers(-4000, 4000))
def test_a_change_does_not_depend_on_the_units_of_a_channel(preset, seed, scale, shift):
    given = image(2, seed=1)
    chosen = AugmentationSettings(preset=preset)
    got, _ = of(given, chosen, seed)
    other, _ = of((given * scale + shift).astype(np.float32), chosen, seed)
    spread = scale * 20
    np.testing.assert_allclose(other, got * scale + shift, atol=2e-3 * spread + 1e-3 * abs(shift) / 100, rtol=1e-6)


def test_flips_are_exact_with_and_without_pixels_of_no_data():
    given = image()
    given[3, 4, 1] = np.nan
    chosen = AugmentationSettings(preset="none", flip_horizontal=True, flip_vertical=True)
    seen = set()
    for seed in range(20):
        got, _ = of(given, chosen, seed)
        (flips,) = [
            f for f in ((1, 1), (1, -1), (-1, 1), (-1, -1)) if np.array_equal(got, given[:: f[0], :: f[1]], True)
        ]
        seen.add(flips)
    assert len(seen) == 4


@pytest.mark.parametrize("seed", range(6))
def test_each_channel_moves_like_the_red_of_a_picture(seed):
    picture = np.random.default_rng(9).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    chosen = AugmentationSettings(preset="none", rotate=40, scale=0.4, quarter_turns=True)
    mask = np.zeros((40, 50), np.uint8)
    want, want_mask = augment(picture, mask, chosen, np.random.default_rng(seed), 255)
    got, got_mask = augment(picture, mask, chosen, np.random.default_rng(seed), 255, raw=True)
    np.testing.assert_array_equal(got_mask, want_mask)
    np.testing.assert_array_equal(np.isnan(got[..., 0]), want_mask == 255)
    inside = want_mask == 0
    assert np.abs(got[inside] - want[inside]).max() < 1.001  # Pillow rounds 8-bit colours down


def test_pixels_of_no_data_stay_so_and_do_not_change_the_others():
    given = image(1)
    hole = given.copy()
    hole[5:9, 6:11] = np.nan
    got = changed_levels(hole, **(NOTHING | {"brightness": 1.3, "noise": 0.1, "seed": 1}))
    assert np.array_equal(np.isnan(got), np.isnan(hole))
    there = hole[~np.isnan(hole)].astype(float)
    bare = changed_levels(hole, **(NOTHING | {"brightness": 1.3}))
    black = there.mean() - 2 * there.std()
    np.testing.assert_allclose(bare[~np.isnan(bare)], (there - black) * 1.3 + black, atol=1e-3)
    assert np.isnan(changed_levels(np.full((4, 4, 1), np.nan, "float32"), **(NOTHING | {"brightness": 2.0}))).all()
    flat = np.full((4, 4, 1), 7, "float32")
    assert np.array_equal(changed_levels(flat, **(NOTHING | {"contrast": 2.0, "noise": 0.5})), flat)
