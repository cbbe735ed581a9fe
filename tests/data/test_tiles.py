import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from convlora.data import tiles
from convlora.data.augmentation.augment import augment
from convlora.data.augmentation.changes import PRESETS, Changes
from convlora.data.augmentation.settings import AugmentationSettings
from convlora.data.dataset import EpochSampler
from convlora.data.labels.format import LabelFormat
from convlora.data.pixels.windows import Box, has_windows, read_mask_window, read_window
from convlora.data.readers.pairing import find_samples
from convlora.data.samples import Sample
from convlora.data.settings import ImageLimits
from convlora.data.tiles import TileDataset, margin
from convlora.errors import ImageError
from tests.data.files import data_set, noise

LABELS = LabelFormat(("background", "leaf", "stem"))
PLAIN = AugmentationSettings(enabled=False)


@dataclass(frozen=True)
class WindowedImage:
    """Red is the row and green the column, each modulo 256; only windows can be read."""

    height: int
    width: int
    path: Path = Path("a.tif")
    windows = []  # noqa: RUF012, the sizes asked for

    def size(self, limits):
        return self.height, self.width

    def read_image(self, limits):
        raise AssertionError("read whole")

    def digest(self):
        return ""

    def read_window(self, top, left, height, width, limits):
        if height * width > limits.max_pixels:
            raise ImageError("too large")
        assert top >= 0 and top + height <= self.height and left >= 0 and left + width <= self.width
        self.windows.append(height * width)
        rows, columns = np.mgrid[top : top + height, left : left + width]
        return np.stack([rows % 256, columns % 256, 0 * rows], -1).astype(np.uint8)


@dataclass(frozen=True)
class WindowedMask:
    """Class 1 in rows 700 to 709 of columns 900 to 909, class 2 in one pixel, 255 in a corner."""

    height: int
    width: int
    path: Path = Path("m.tif")

    def read_mask(self, limits):
        raise AssertionError("read whole")

    def read_window(self, top, left, height, width, limits):
        if height * width > limits.max_pixels:
            raise ImageError("too large")
        rows, columns = np.mgrid[top : top + height, left : left + width]
        values = np.where((rows // 10 == 70) & (columns // 10 == 90), 1, 0)
        values[(rows == 3) & (columns == 5)] = 2
        values[(rows < 3) & (columns < 3)] = 255
        return values.astype(np.int32)


def windowed(tile, height=1000, width=1400, **options):
    sample = Sample("a", WindowedImage(height, width), WindowedMask(height, width))
    return TileDataset([sample], LABELS, tile=tile, limits=ImageLimits(400_000), **options)


def coordinates(item):
    """Row and column of the first pixel of a crop of `WindowedImage`, modulo 256."""
    return tuple(item["image"][0, 0, :2].tolist())


def files(folder, *sizes, **options):
    """Crops of images of noise with masks of three classes."""
    masks = [noise(*size, 1, seed=i) % 3 for i, size in enumerate(sizes)]
    samples = find_samples(**data_set(folder, masks))
    return TileDataset(samples, LABELS, **{"limits": ImageLimits(), **options}), masks


def test_crops_are_the_images_and_masks_own_pixels(tmp_path):
    data, masks = files(tmp_path, (50, 70), (33, 90), tile=32, augmentation=PLAIN)
    seen = set()
    for number in range(len(data)):
        item = data[4, number]
        which = int(item["name"][1:])
        image, mask = noise(*masks[which].shape, seed=which), masks[which]
        places = [
            (top, left)
            for top in range(mask.shape[0] - 31)
            for left in range(mask.shape[1] - 31)
            if np.array_equal(mask[top : top + 32, left : left + 32], item["mask"])
        ]
        ((top, left),) = places
        np.testing.assert_array_equal(item["image"], image[top : top + 32, left : left + 32])
        seen.add((which, top, left))
    assert len(seen) == len(data)


def test_an_epoch_shows_about_as_many_pixels_as_there_are(tmp_path):
    data, _ = files(tmp_path, (64, 64), (65, 64), (20, 10), (200, 100), tile=32)
    # 4 squares, 4.06 and 19.5 begun ones, and the one that a small image fills in part
    assert len(data) == 4 + 5 + 1 + 20
    assert [data[0, number]["name"] for number in (0, 3, 4, 8, 9, 10, 29)] == [
        f"s{i:02}" for i in (0, 0, 1, 1, 2, 3, 3)
    ]
    fixed, _ = files(tmp_path / "b", (64, 64), (20, 10), tile=32, per_image=3)
    assert len(fixed) == 6


def test_images_smaller_than_a_tile_keep_their_size(tmp_path):
    data, masks = files(tmp_path, (20, 10), (20, 50), tile=32, augmentation=PLAIN)
    np.testing.assert_array_equal(data[0, 0]["mask"], masks[0])
    assert data[0, 1]["mask"].shape == (20, 32) and data[0, 1]["image"].shape == (20, 32, 3)
    changed, _ = files(
        tmp_path / "b", (20, 10), (20, 50), tile=32, augmentation=AugmentationSettings(quarter_turns=True)
    )
    shapes = {(number, changed[epoch, number]["mask"].shape) for epoch in range(20) for number in (0, 1)}
    assert shapes == {(0, (20, 10)), (0, (10, 20)), (1, (20, 32)), (1, (32, 20))}


def test_seed_epoch_and_number_decide_a_crop_and_nothing_else_does():
    first, again = windowed(64), windowed(64)
    for key in [(0, 0), (0, 1), (5, 1)]:
        again[9, 9]
        one, other = first[key], again[key]
        assert np.array_equal(one["image"], other["image"]) and np.array_equal(one["mask"], other["mask"])
    places = {coordinates(first[epoch, number]) for epoch in range(10) for number in range(10)}
    assert len(places) > 90
    assert coordinates(windowed(64, seed=1)[0, 0]) != coordinates(first[0, 0])
    views = windowed(64, augmentation=AugmentationSettings(views=2))
    assert np.array_equal(views[0, 3]["image"], views[4, 3]["image"])
    assert not np.array_equal(views[0, 3]["image"], views[1, 3]["image"])


def test_workers_and_the_sampler_give_the_same_crops(tmp_path):
    data, _ = files(tmp_path, (50, 70), (33, 90), tile=32, sampling="foreground", augmentation=AugmentationSettings())
    sampler = EpochSampler(len(data), seed=3)
    alone, shared = (
        list(DataLoader(data, sampler=sampler, batch_size=None, num_workers=workers, collate_fn=None))
        for workers in (0, 2)
    )
    for one, other in zip(alone, shared, strict=True):
        assert np.array_equal(one["image"], other["image"]) and np.array_equal(one["mask"], other["mask"])


def test_random_crops_come_from_everywhere_alike():
    data = windowed(100, height=130, width=101, augmentation=None)
    rng = np.random.default_rng(0)
    boxes = [data._draw(0, rng) for _ in range(4000)]
    rows = np.bincount([box.top for box in boxes], minlength=31)
    assert {box.left for box in boxes} == {0, 1} and len(rows) == 31
    assert rows.min() > 80  # 4000 / 31 = 129, standard deviation 11


def test_half_of_the_crops_are_centred_on_a_pixel_of_a_random_class():
    data = windowed(64, sampling="foreground")
    rng = np.random.default_rng(0)
    boxes = [data._draw(0, rng) for _ in range(4000)]
    # class 1 fills 100 pixels, class 2 one: each is aimed at by a quarter of the crops; of random ones few hit either
    corner = sum(box == Box(0, 0, 64, 64) for box in boxes)  # moved into the image from (3 - 32, 5 - 32)
    around = [box for box in boxes if 700 <= box.top + 32 < 710 and 900 <= box.left + 32 < 910]
    assert abs(corner - 1000) < 120 and abs(len(around) - 1000) < 120  # 4 standard deviations
    assert len({(box.top, box.left) for box in around}) > 95
    assert all(0 <= box.top <= 936 and 0 <= box.left <= 1336 for box in boxes)


def test_images_without_foreground_give_random_crops():
    data = windowed(64, height=600, sampling="foreground")  # class 2 alone
    data.labels = dataclasses.replace(LABELS, encoding="table", table=((0, 0), (1, 0), (2, 255), (255, 255)))
    rng = np.random.default_rng(0)
    assert len({data._draw(0, rng) for _ in range(100)}) == 100


def test_foreground_of_a_large_mask_is_a_fair_and_bounded_sample(monkeypatch):
    monkeypatch.setattr(tiles, "_REMEMBERED", 50)
    monkeypatch.setattr(tiles, "_BAND", 703 * 1400)  # the class lies in two bands
    data = windowed(64, height=720, sampling="foreground")
    one, two = (np.stack(np.divmod(places, 1400), axis=1) for places in data._foreground(0))
    assert one.shape == (50, 2) and two.tolist() == [[3, 5]] and len({tuple(place) for place in one.tolist()}) == 50
    assert one[:, 0].min() >= 700 and one[:, 0].max() < 710 and one[:, 1].min() >= 900 and one[:, 1].max() < 910
    counts = np.zeros(100)
    for seed in range(40):
        for place in windowed(64, height=720, sampling="foreground", seed=seed)._foreground(0)[0].tolist():
            row, column = divmod(place, 1400)
            counts[(row - 700) * 10 + column - 900] += 1
    assert counts.min() >= 7 and counts.max() <= 33  # 20 of 40 each, standard deviation 3.2
    assert abs(counts[:30].mean() - 20) < 2  # the rows of the first band


def test_what_is_remembered_of_the_foreground_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch):
    monkeypatch.setattr(tiles, "_REMEMBERED_IN_ALL", 30)
    data, masks = files(tmp_path, *[(40, 40)] * 6, tile=8, sampling="foreground")
    places = [data._foreground(index) for index in range(6)]
    assert all(len(of_class) == 5 for image in places for of_class in image)  # of hundreds
    assert [masks[i].flat[of_class[0]] for i, image in enumerate(places) for of_class in image] == [1, 2] * 6


def test_no_more_of_a_large_image_is_read_than_a_crop_and_its_margin():
    WindowedImage.windows.clear()
    data = windowed(64, height=100_000, width=100_000, augmentation=AugmentationSettings())
    data._draw = lambda index, rng: Box(500, 600, 64, 64)
    assert data[0, 7_000]["image"].shape == (64, 64, 3) and len(data) == -(-(100_000**2) // 64**2)
    side = 64 + 2 * margin(Box(0, 0, 64, 64), AugmentationSettings().changes)
    assert WindowedImage.windows == [side**2] and side < 64 * 1.6


@pytest.mark.parametrize(
    "changes", [Changes(rotate=15, scale=0.2), Changes(rotate=180, scale=0.5), *PRESETS.values()], ids=str
)
@pytest.mark.parametrize("box", [Box(400, 300, 64, 64), Box(300, 500, 31, 64), Box(300, 500, 64, 17)])
def test_changes_bring_no_borders_into_a_crop_inside_the_image(changes, box):
    given = AugmentationSettings(**dataclasses.asdict(changes))
    data = windowed(64, augmentation=given)
    data._draw = lambda index, rng: box
    for epoch in range(40):
        item = data[epoch, 0]
        assert (item["mask"] != 255).all() and sorted(item["mask"].shape) == sorted((box.height, box.width))


def test_what_a_margin_lacks_is_ignored():
    data = windowed(64, augmentation=AugmentationSettings(rotate=45, scale=0, flip_horizontal=False))
    data._draw = lambda index, rng: Box(936, 1336, 64, 64)  # the lower right corner
    shares = [(data[epoch, 0]["mask"] == 255).mean() for epoch in range(20)]
    assert max(shares) > 0.03 and max(shares) < 0.5


def test_a_crop_with_a_margin_is_changed_as_the_image_around_it_is():
    data = windowed(64, augmentation=AugmentationSettings(rotate=30, scale=0.3, brightness=0, contrast=0, saturation=0))
    box = Box(400, 300, 64, 64)
    data._draw = lambda index, rng: box
    around = Box(272, 172, 320, 320)  # with more than the margin
    image = WindowedImage(1000, 1400).read_window(*around, ImageLimits())
    for epoch in range(5):
        rng = np.random.default_rng((0, epoch, 0))
        whole, _ = augment(image, np.zeros((320, 320), np.uint8), data.augmentation, rng, 255)
        np.testing.assert_array_equal(data[epoch, 0]["image"], whole[128:192, 128:192])


@given(st.integers(0, 40), st.integers(0, 60), st.integers(1, 40), st.integers(1, 40), st.integers(0, 90))
@settings(deadline=None)
def test_a_widened_box_is_what_the_image_has_of_it(top, left, height, width, by):
    size = (top + height + 7, left + width + 3)
    wide = Box(top, left, height, width).widened(by, size)
    inside = np.zeros(size, dtype=bool)
    inside[max(0, top - by) : top + height + by, max(0, left - by) : left + width + by] = True
    mine = np.zeros(size, dtype=bool)
    mine[wide.slices] = True
    np.testing.assert_array_equal(mine, inside)
    assert mine.sum() == wide.height * wide.width


def test_windows_of_files_are_cut_from_the_whole(tmp_path):
    data, masks = files(tmp_path, (50, 70), tile=32)
    sample, box = data.samples[0], Box(3, 5, 20, 9)
    np.testing.assert_array_equal(read_window(sample.image, box, ImageLimits()), noise(50, 70)[3:23, 5:14])
    np.testing.assert_array_equal(read_mask_window(sample.mask, box, ImageLimits()), masks[0][3:23, 5:14])
    assert not has_windows(sample.image) and has_windows(WindowedImage(1, 1), WindowedMask(1, 1))
    assert not has_windows(WindowedImage(1, 1), sample.mask)
    with pytest.raises(ImageError, match="megapixels"):
        read_window(sample.image, box, ImageLimits(3499))


def test_decoded_files_are_kept_and_not_handed_out(tmp_path, monkeypatch):
    data, _ = files(tmp_path, (50, 70), tile=32, cache_bytes=10**6, augmentation=PLAIN)
    first = data[0, 0]
    monkeypatch.setattr(data, "_decode", None)  # a second decoding would fail
    assert first["image"].base is None and first["mask"].base is None
    data[0, 1]
