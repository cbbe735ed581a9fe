from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convlora.data.pixels.masks import read_mask, require_equal_sizes
from convlora.data.samples import Sample
from convlora.errors import MaskError
from tests.data.files import noise, png_grey, save, tiff

IDS = np.random.default_rng(0).choice([0, 1, 2, 7, 255], (10, 16)).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_grey_masks_give_their_values(tmp_path, suffix):
    got = read_mask(save(tmp_path / f"a.{suffix}", IDS))
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, IDS)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_palette_gives_indices_not_colours(tmp_path, suffix):
    picture = Image.fromarray(IDS)
    picture.putpalette(noise(256, 3, 1, seed=1).tobytes())
    picture.save(tmp_path / f"a.{suffix}")
    assert Image.open(tmp_path / f"a.{suffix}").mode == "P"
    np.testing.assert_array_equal(read_mask(tmp_path / f"a.{suffix}"), IDS)


def test_a_small_palette_of_4_bits_gives_indices(tmp_path):
    indices = IDS % 3
    picture = Image.fromarray(indices)
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    picture.save(tmp_path / "a.png", bits=4, transparency=0)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), indices)


def test_one_bit_is_0_and_1(tmp_path):
    np.testing.assert_array_equal(read_mask(save(tmp_path / "a.png", IDS > 1)), (IDS > 1).astype(int))


@pytest.mark.parametrize("depth", [2, 4])
def test_two_and_four_bits_are_not_spread_over_0_to_255(tmp_path, depth):
    ids = IDS % 2**depth
    (tmp_path / "a.png").write_bytes(png_grey(ids, depth))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), ids)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_values_are_not_scaled(tmp_path, dtype):
    values = np.array([[0, 1, 300], [255, 65535, 2]], dtype=dtype)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "a.tif", values)), values)


@pytest.mark.parametrize("layers", [3, 4])
def test_equal_channels_are_one(tmp_path, layers):
    pixels = np.repeat(IDS[..., None], layers, axis=2)
    pixels[..., 3:] = 255
    np.testing.assert_array_equal(read_mask(save(tmp_path / "a.png", pixels)), IDS)
    np.testing.assert_array_equal(read_mask(save(tmp_path / "la.png", IDS, "LA")), IDS)


def test_real_colours_are_refused_with_the_way_to_convert_them(tmp_path):
    pixels = np.zeros((4, 5, 3), dtype=np.uint8)
    pixels[1, 2:] = (128, 0, 0)
    with pytest.raises(
        MaskError, match=r"in colour: 3 of 20 pixels, such as \(128, 0, 0\)\. Say .* --mask_format colours"
    ):
        read_mask(save(tmp_path / "a.png", pixels))
    with pytest.raises(MaskError, match=r"in colour.*JPEG also smears the values"):
        read_mask(save(tmp_path / "a.jpg", pixels))


def test_transparent_pixels_are_refused(tmp_path):
    pixels = np.full((4, 5, 4), 255, dtype=np.uint8)
    pixels[0, :2, 3] = 0
    for mode in ("RGBA", "LA"):
        with pytest.raises(MaskError, match="2 of 20 pixels are transparent"):
            read_mask(save(tmp_path / "a.png", pixels, mode))


def test_layouts_whose_values_would_be_lost_are_refused(tmp_path):
    deep = np.full((4, 4, 3), 1, dtype=np.uint16)  # class 1: Pillow's high byte would be 0
    (tmp_path / "deep.tif").write_bytes(tiff(deep.tobytes(), 16, height=4, width=4, photometric=2, per_pixel=3))
    with pytest.raises(MaskError, match="16-bit colour or alpha cannot be read"):
        read_mask(tmp_path / "deep.tif")
    (tmp_path / "white.tif").write_bytes(tiff(bytes(16), 8, height=4, width=4, photometric=0))
    with pytest.raises(MaskError, match="stores white as 0"):
        read_mask(tmp_path / "white.tif")
    Image.new("CMYK", (4, 4)).save(tmp_path / "inks.tif")
    with pytest.raises(MaskError, match="mode CMYK cannot be read"):
        read_mask(tmp_path / "inks.tif")


@pytest.mark.parametrize("bad", [0.5, np.nan, np.inf, 2.0**24])
def test_floats_that_are_not_whole_numbers_are_refused(tmp_path, bad):
    values = np.array([[0, 1, bad]], dtype=np.float32)
    with pytest.raises(MaskError, match="1 of 3 pixels are not whole numbers"):
        read_mask(save(tmp_path / "a.tif", values))


def test_different_sizes_are_refused_and_a_turned_mask_is_recognised():
    sample = Sample("a", Path("a.jpg"), Path("a.png"))
    require_equal_sizes(sample, (4, 6), (4, 6))
    with pytest.raises(MaskError, match=r"a\.png: 5 x 6 pixels .* but its image a\.jpg has 4 x 6\. Resize"):
        require_equal_sizes(sample, (4, 6), (5, 6))
    with pytest.raises(MaskError, match="One of the two is turned: check the EXIF orientation"):
        require_equal_sizes(sample, (4, 6), (6, 4))
