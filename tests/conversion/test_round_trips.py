"""Every format that is written, read again by this package's own readers, and converted from one to the next."""

import dataclasses
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import HealthCheck, given, settings
from rasterio.transform import Affine

from convlora.conversion.convert import convert_samples
from convlora.conversion.settings import ConversionOptions
from convlora.data.pixels.masks import read_mask
from convlora.data.readers.finding import find_data
from convlora.data.settings import DataSettings
from tests.conversion.masks import LABELS, PICTURE, masks, save_samples

ANNOTATED = ("coco", "labelme", "yolo", "cvat")


def read_again(found):
    """Class ids by name of the image."""
    return {s.name: found.labels.decode(read_mask(s.required_mask()), s.mask) for s in found.samples}


def convert(found_or_samples, labels, target, output, **options):
    convert_samples(found_or_samples, labels, target, output, ConversionOptions(copy_images=True, **options))
    return find_data(DataSettings(images=str(output)))


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("coco", {}),
        ("coco", {"shapes": "polygons"}),
        ("coco", {"objects": "classes"}),
        ("labelme", {}),
        ("labelme", {"shapes": "masks"}),
        ("yolo", {}),
        ("cvat", {}),
        ("cvat", {"shapes": "polygons"}),
    ],
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mask=masks())
def test_masks_are_found_again_without_a_word_and_equal(target, options, mask):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = save_samples(folder, [mask, PICTURE])
        found = convert(samples, LABELS, target, folder / "out", **options)
        assert found.labels.classes == LABELS.classes
        again = read_again(found)
        assert again.keys() == {"p0", "p1"}
        assert np.array_equal(again["p0"], mask) and np.array_equal(again["p1"], PICTURE)


@pytest.mark.parametrize("target", ANNOTATED)
def test_images_may_have_raw_channels(tmp_path, target):
    (tmp_path / "bands").mkdir()
    path = tmp_path / "bands/a.tif"
    tifffile.imwrite(path, np.zeros((5, *PICTURE.shape), np.uint16), planarconfig="separate", photometric="minisblack")
    sample = dataclasses.replace(save_samples(tmp_path, [PICTURE])[0], name="a", image=path)
    options = ConversionOptions(copy_images=True)
    convert_samples([sample], LABELS, target, tmp_path / "out", options, channels=5)
    again = read_again(find_data(DataSettings(images=str(tmp_path / "out"), channels=5)))
    assert np.array_equal(again["a"], PICTURE)


@pytest.mark.parametrize("target", ["coco", "cvat"])
def test_colours_of_classes_are_found_again(tmp_path, target):
    colours = ((0, 0, 0), (1, 2, 3), (250, 0, 9))
    labels = dataclasses.replace(LABELS, colours=colours)
    assert convert(save_samples(tmp_path, [PICTURE]), labels, target, tmp_path / "out").labels.colours == colours


def test_masks_in_colours_are_found_again_with_what_is_ignored(tmp_path):
    white = ((255, 255, 255), (1, 2, 3), (250, 0, 9))
    labels = dataclasses.replace(LABELS, colours=white)
    mask = PICTURE.copy()
    mask[0, :3] = 255
    samples = save_samples(tmp_path, [mask])
    convert_samples(samples, labels, "colours", tmp_path / "out", ConversionOptions(copy_images=True))
    table = str(tmp_path / "out/labelmap.txt")
    places = {"images": str(tmp_path / "out/images"), "masks": str(tmp_path / "out")}
    found = find_data(DataSettings(**places, mask_format="colours", colours=table))
    assert found.labels.classes == LABELS.classes and found.labels.colours == white
    assert np.array_equal(read_again(found)["p0"], mask)


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(ANNOTATED, 2)))
def test_a_data_set_goes_from_one_tool_to_another(tmp_path, first, second):
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random((24, 31)) < 0.6, rng.integers(0, 3, (24, 31)), 0).astype(np.uint8)
    samples = save_samples(tmp_path, [noisy, PICTURE, np.zeros((5, 6), dtype=np.uint8)])
    one = convert(samples, LABELS, first, tmp_path / "one")
    other = convert(one.samples, one.labels, second, tmp_path / "other")
    again = read_again(other)
    assert other.labels.classes == LABELS.classes
    assert [np.array_equal(ids, mask) for ids, mask in zip(again.values(), [noisy, PICTURE], strict=False)] == [
        True
    ] * 2
    assert again["p2"].shape == (5, 6) and not again["p2"].any()


def test_colours_are_found_again_as_ids_and_by_their_table(tmp_path):
    samples = save_samples(tmp_path, [PICTURE, PICTURE.T.copy()])
    convert_samples(samples, LABELS, "colours", tmp_path / "out")
    common = {"images": str(tmp_path / "images"), "masks": str(tmp_path / "out")}
    for more in ({}, {"mask_format": "colours", "colours": str(tmp_path / "out" / "labelmap.txt")}):
        found = find_data(DataSettings(**common, **more))
        labels = found.labels or LABELS
        decoded = [labels.decode(read_mask(sample.mask), sample.mask) for sample in found.samples]
        assert labels.classes == LABELS.classes and np.array_equal(decoded[0], PICTURE), more


def test_outlines_on_earth_are_burned_into_the_same_pixels(tmp_path):
    ids = np.kron(PICTURE, np.ones((3, 4), dtype=np.uint8))
    save_samples(tmp_path, [ids])
    (tmp_path / "rasters").mkdir()
    profile = {"driver": "GTiff", "height": 21, "width": 28, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(
        tmp_path / "rasters" / "p0.tif", "w", **profile, transform=Affine(10, 1, 5e5, 1, -10, 5e6)
    ) as raster:
        raster.write(np.arange(3 * 21 * 28).reshape(3, 21, 28).astype(np.uint8))
    plain = find_data(DataSettings(images=str(tmp_path / "rasters"), masks=str(tmp_path / "masks")))
    convert_samples(plain.samples, LABELS, "geojson", tmp_path / "out")
    found = find_data(DataSettings(images=str(tmp_path / "rasters"), masks=str(tmp_path / "out")))
    assert found.labels.classes == LABELS.classes
    assert np.array_equal(read_again(found)["p0"], ids)
