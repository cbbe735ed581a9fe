import io
import struct
import time
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from convlora.data.pixels.images import ImageLimits, image_size, read_image
from convlora.data.pixels.masks import read_mask
from convlora.errors import ConvloraError, ImageError
from tests.data.files import STORED, corrupted, noise, png_header, save, tiff

SUFFIXES = ("png", "jpg", "tif", "bmp", "webp")


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def encoded(suffix, size=(24, 31), **options):
    stream = io.BytesIO()
    kind = {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix)
    Image.fromarray(noise(*size)).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("name", ["a.png", "a.tif", "lzw.tif", "a.webp", "a.jpg"])
def test_exif_orientation_is_applied_to_image_mask_and_size(tmp_path, orientation, name):
    upright = np.zeros((16, 48), dtype=np.uint8)
    upright[:8, :16] = 200  # 8 x 8 blocks survive JPEG
    upright[8:, 40:] = 90
    stored = np.ascontiguousarray(STORED[orientation](upright))
    options = {"lossless": True} if name.endswith("webp") else {"quality": 100} if name.endswith("jpg") else {}
    options |= {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
    path = save(tmp_path / name, stored, exif=exif(orientation), **options)
    assert image_size(path) == (16, 48)
    np.testing.assert_array_equal(read_image(path)[..., 0], upright)
    np.testing.assert_array_equal(read_mask(path), upright)


def test_a_photo_of_a_phone_with_smaller_copies_behind_it_is_read(tmp_path):
    path = tmp_path / "photo.jpg"
    photo = Image.fromarray(np.full((16, 16, 3), 80, dtype=np.uint8))
    photo.save(path, "MPO", save_all=True, append_images=[photo.resize((8, 8))])
    assert Image.open(path).n_frames == 2
    np.testing.assert_array_equal(read_image(path), np.asarray(photo))


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_several_frames_are_refused(tmp_path, suffix):
    frames = [Image.fromarray(noise(8, 8, seed=i)) for i in range(3)]
    path = tmp_path / f"stack.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    for reader in (read_image, read_mask, image_size):
        with pytest.raises(ImageError, match=r"stack\.\w+: holds several pages or frames; split it"):
            reader(path)


def test_a_bomb_is_refused_by_its_header_within_50_ms(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    read_image(save(tmp_path / "warm.png", noise(4, 4)))
    started = time.perf_counter()
    with pytest.raises(ImageError, match=r"20000 x 20000 pixels .* 400\.0 megapixels, more than the 64 allowed"):
        read_image(path)
    assert time.perf_counter() - started < 0.05


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_limit_counts_pixels_exactly(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", noise(10, 11))
    assert read_image(path, ImageLimits(max_pixels=110)).shape == (10, 11, 3)
    with pytest.raises(ImageError, match="megapixels, more than"):
        read_image(path, ImageLimits(max_pixels=109))


def test_only_our_limit_rules_and_pillows_is_left_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = save(tmp_path / "a.png", noise(10, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (10, 10, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"GIF89a" + bytes(40), "not a PNG, JPEG, TIFF, BMP or WebP image"),
        (b"%PDF-1.7", "not a PNG, JPEG"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (png_header(5, 5), "damaged"),
        (png_header(0, 5), r"0 x 5 pixels|damaged"),
        (tiff(bytes(48), 32, height=4, width=4, photometric=2, per_pixel=3), "damaged, or of a kind that cannot"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "damaged"),
        (tiff(bytes(96), 16, height=4, width=4, photometric=2, per_pixel=3, planar=2), "separate planes"),
    ],
)
def test_what_is_not_an_image_is_refused_with_its_path(tmp_path, content, message):
    path = tmp_path / "odd.png"
    path.write_bytes(content)
    for reader in (read_image, read_mask):
        with pytest.raises(ImageError, match=rf"odd\.png: .*({message})"):
            reader(path)


def test_missing_files_and_folders_are_image_errors(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(ImageError, match="cannot be opened"):
            read_image(path)


def test_the_first_bytes_decide_not_the_suffix(tmp_path):
    save(tmp_path / "a.png", noise(5, 5)).rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), noise(5, 5))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(tmp_path, suffix, kept):
    content = encoded(suffix)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ImageError, match="cut"):
        read_image(path)


def test_a_tiff_that_lacks_strips_is_refused_not_filled_with_black(tmp_path):
    content = tiff(bytes(range(64)), 8, height=8, width=8)
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    assert read_image(path).shape == (8, 8, 3)
    rows = struct.pack("<HHII", 278, 4, 1, 8)
    assert content.count(rows) == 1
    path.write_bytes(content.replace(rows, struct.pack("<HHII", 278, 4, 1, 5)))  # one strip of 5 rows
    with pytest.raises(ImageError, match="a part of its pixels is not in the file"):
        read_image(path)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd metadata
@pytest.mark.parametrize("suffix", [*SUFFIXES, "lzw"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_corrupted_bytes_raise_nothing_but_our_errors_within_a_second(tmp_path, suffix, data):
    options = {"compression": "tiff_lzw"} if suffix == "lzw" else {}
    content = bytearray(encoded("tif" if suffix == "lzw" else suffix, exif=exif(6), **options))
    near = st.integers(0, min(300, len(content) - 1))
    positions = data.draw(st.lists(near | st.integers(0, len(content) - 1), min_size=1, max_size=8))
    for position in positions:
        content[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "corrupt"
    path.write_bytes(content)
    for reader in (read_image, read_mask, image_size):
        started = time.perf_counter()
        try:
            reader(path, ImageLimits(max_pixels=10_000_000))
        except ConvloraError as error:
            assert str(path) in str(error)
        assert time.perf_counter() - started < 1


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_24_000_corrupted_images_raise_nothing_but_our_errors_within_a_second(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "corrupt"
    contents = [encoded(suffix, exif=exif(6)) for suffix in SUFFIXES] + [encoded("tif", compression="tiff_lzw")]
    refused = 0
    for _ in range(24_000 // len(contents)):
        for content in contents:
            path.write_bytes(corrupted(content, rng))
            for reader in (read_image, read_mask):
                started = time.process_time()
                try:
                    reader(path, ImageLimits(max_pixels=10_000_000))
                except ConvloraError as error:
                    refused += reader is read_image
                    assert str(path) in str(error) and "\n" not in str(error)
                assert time.process_time() - started < 1
    assert 10_000 < refused < 22_000  # some were broken indeed, and some were not
