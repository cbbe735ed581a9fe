"""Augmentation with the presets for kinds of images, and what nothing but a preset changes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convlora.data.augmentation.augment import _output_to_input, _recolour, _warp, augment
from convlora.data.augmentation.settings import COLOURS_AND_FLIPS, PRESETS, AugmentationSettings, Changes
from tests.data.files import noise

KINDS = [name for name in PRESETS if name != "none"]


def rng(seed):
    return np.random.default_rng(seed)


def scene(height, width, landmarks):
    """Bright soft discs on grey, and a mask in which each disc has an id of its own."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    image, mask = np.full((height, width), 60.0), np.zeros((height, width), dtype=np.uint8)
    for class_id, (row, column) in enumerate(landmarks, 1):
        distance = np.hypot(rows - row, columns - column)
        image = np.maximum(image, 60 + 140 * np.clip(9.5 - distance, 0, 1))
        mask[distance <= 9] = class_id
    return np.repeat(np.rint(image)[..., None].astype(np.uint8), 3, 2), mask


def centre(inside):
    return np.argwhere(inside).mean(0) + 0.5


@pytest.mark.parametrize("name", KINDS)
def test_masks_keep_their_ids_and_landmarks_of_image_and_mask_stay_together(name):
    """200 random changes of a preset."""
    landmarks = [(40, 45), (95, 60), (60, 115)]
    image, mask = scene(140, 160, landmarks)
    seen = 0
    for seed in range(200):
        got_image, got_mask = augment(image, mask, AugmentationSettings(preset=name), rng(seed), 255)
        assert set(np.unique(got_mask)) <= {0, 1, 2, 3, 255} and got_mask.dtype == np.uint8
        assert got_image.shape == (*got_mask.shape, 3) and sorted(got_mask.shape) == [140, 160]
        grey = got_image.mean(-1)
        background = np.median(grey[got_mask == 0])
        for class_id in (1, 2, 3):
            rows, columns = np.nonzero(got_mask == class_id)
            if len(rows) == 0 or rows.min() < 4 or columns.min() < 4:
                continue
            if rows.max() > got_mask.shape[0] - 5 or columns.max() > got_mask.shape[1] - 5:
                continue  # cut by the border
            window = (slice(rows.min() - 3, rows.max() + 4), slice(columns.min() - 3, columns.max() + 4))
            if (got_mask[window] == 255).any():
                continue
            bright = grey[window] > (background + np.median(grey[got_mask == class_id])) / 2
            assert np.abs(centre(bright) - centre(got_mask[window] == class_id)).max() < 0.5
            seen += 1
    assert seen > 300


@pytest.mark.parametrize("name", KINDS)
def test_where_masks_go_is_what_the_same_geometry_alone_makes_of_them(name):
    """Levels never move a pixel: with every change of levels off, masks are the same bit for bit."""
    still = dict.fromkeys(("brightness", "contrast", "saturation", "gamma", "noise", "blur"), 0.0)
    image, mask = scene(60, 50, [(30, 25)])
    for seed in range(20):
        _, got = augment(image, mask, AugmentationSettings(preset=name), rng(seed), 255)
        _, want = augment(image, mask, AugmentationSettings(preset=name, **still), rng(seed), 255)
        np.testing.assert_array_equal(got, want)


def test_medical_images_are_never_mirrored():
    image, mask = noise(40, 40), np.zeros((40, 40), dtype=np.uint8)
    mask[:, 20:] = 1
    for seed in range(200):
        _, got = augment(image, mask, AugmentationSettings(preset="medical"), rng(seed), 255)
        known = got != 255
        assert (got[:, 32:][known[:, 32:]] == 1).all() and (got[:, :8][known[:, :8]] == 0).all()


def test_quarter_turns_are_exact_and_equally_frequent():
    image, mask = noise(20, 30), noise(20, 30, 1)
    chosen, counts = AugmentationSettings(preset="none", quarter_turns=True), [0, 0, 0, 0]
    for seed in range(400):
        got_image, got_mask = augment(image, mask, chosen, rng(seed), 255)
        (turns,) = (k for k in range(4) if np.array_equal(got_image, np.rot90(image, k)))
        assert np.array_equal(got_mask, np.rot90(mask, turns))
        counts[turns] += 1
    assert min(counts) > 60  # 100 expected; 4.6 standard deviations


def test_the_preset_none_changes_not_a_bit():
    image, mask = noise(20, 31), noise(20, 31, 1)
    for seed in range(20):
        got_image, got_mask = augment(image, mask, AugmentationSettings(preset="none"), rng(seed), 255)
        assert np.array_equal(got_image, image) and np.array_equal(got_mask, mask)


@pytest.mark.parametrize("seed", range(20))
def test_without_a_preset_the_pixels_are_those_of_before_there_were_presets(seed):
    """The former algorithm, step by step: two draws for flips, five for the rest, and nothing that came later."""
    image, mask = noise(64, 80), noise(64, 80, 1) % 4
    draws = rng(seed)
    flip_x, flip_y = draws.random(2) < 0.5
    rotate, scale, brightness, contrast, saturation = draws.uniform(-1, 1, 5).tolist()
    geometry = _output_to_input((64, 80), flips=(flip_x, flip_y), degrees=15 * rotate, zoom=1.2**scale)
    want = _recolour(image, 1 + 0.2 * brightness, 1 + 0.2 * contrast, 1 + 0.1 * saturation)
    got_image, got_mask = augment(image, mask, AugmentationSettings(), rng(seed), 255)
    np.testing.assert_array_equal(got_image, _warp(want, geometry, Image.Resampling.BILINEAR, 0))
    np.testing.assert_array_equal(got_mask, _warp(mask, geometry, Image.Resampling.NEAREST, 255))


def test_what_is_given_overrides_the_preset_and_the_rest_stays():
    chosen = AugmentationSettings(preset="aerial", rotate=5.0, flip_vertical=False).changes
    assert chosen == dataclasses.replace(PRESETS["aerial"], rotate=5.0, flip_vertical=False)
    assert AugmentationSettings().changes == COLOURS_AND_FLIPS


@pytest.mark.parametrize("name", [None, *PRESETS])
def test_written_out_it_is_the_same_changes_with_no_need_of_the_preset(name):
    chosen = AugmentationSettings(preset=name)
    assert dataclasses.replace(chosen.written_out(), preset=None).changes == chosen.changes


def test_unknown_presets_and_values_out_of_range_are_told():
    assert "must be one of natural, medical, microscopy, aerial, none" in AugmentationSettings(preset="x").problems()[0]
    for name, value in (("gamma", -1), ("noise", 1.1), ("blur", 21), ("gamma", float("nan"))):
        (problem,) = AugmentationSettings(**{name: value}).problems()
        assert problem.startswith(f"augmentation.{name}={value} must be between 0 and")


def test_the_documentation_has_every_value_of_every_preset():
    page = (Path(__file__).parents[3] / "docs" / "augmentation.md").read_text(encoding="utf-8")
    head, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in page.splitlines() if line[:1] == "|"]
    assert head == ["", "default", *PRESETS]
    shown = {name: [float({"": 0, "yes": 1}.get(cell, cell)) for cell in cells] for name, *cells in rows[1:]}
    presets = [COLOURS_AND_FLIPS, *PRESETS.values()]
    assert shown == {field.name: [getattr(p, field.name) for p in presets] for field in dataclasses.fields(Changes)}
