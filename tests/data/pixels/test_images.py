import numpy as np
import PIL
import pytest
from PIL import Image

from convlora.data.pixels.images import read_image
from convlora.errors import ImageError
from tests.data.files import noise, png_grey, save, tiff

HEIGHT, WIDTH = 9, 12


def grey_of(path):
    pixels = read_image(path)
    assert pixels.dtype == np.uint8 and pixels.flags.writeable
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def on_black(colours, alpha):
    return np.rint(colours.astype(float) * alpha[..., None].astype(float) / 255).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_eight_bit_rgb_and_grey_are_taken_as_they_are(tmp_path, suffix):
    colours, grey = noise(HEIGHT, WIDTH), noise(HEIGHT, WIDTH, 1)
    np.testing.assert_array_equal(read_image(save(tmp_path / f"c.{suffix}", colours)), colours)
    np.testing.assert_array_equal(grey_of(save(tmp_path / f"g.{suffix}", grey)), grey)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_one_bit_is_black_and_white(tmp_path, suffix):
    bits = noise(HEIGHT, WIDTH, 1) > 127
    np.testing.assert_array_equal(grey_of(save(tmp_path / f"a.{suffix}", bits)), bits * np.uint8(255))


@pytest.mark.parametrize("depth", [2, 4])
def test_two_and_four_bits_span_black_to_white(tmp_path, depth):
    values = noise(8, 8, 1) % 2**depth
    (tmp_path / "a.png").write_bytes(png_grey(values, depth))
    np.testing.assert_array_equal(grey_of(tmp_path / "a.png"), values * (255 // (2**depth - 1)))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_and_rounded_not_clipped(tmp_path, suffix):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    want = np.rint(values / 257).astype(np.uint8)  # 257 is odd: no ties
    np.testing.assert_array_equal(grey_of(save(tmp_path / f"a.{suffix}", values)), want)


def test_sixteen_bit_grey_of_other_layouts_gives_the_same_picture(tmp_path):
    values = noise(HEIGHT, WIDTH, 1, dtype=np.uint16)
    want = np.rint(values / 257)
    big = Image.frombytes("I;16B", (WIDTH, HEIGHT), values.astype(">u2").tobytes())
    big.save(tmp_path / "big.tif")
    save(tmp_path / "int.tif", values.astype(np.int32))
    content = tiff((65535 - values).tobytes(), 16, height=HEIGHT, width=WIDTH, photometric=0)
    (tmp_path / "white-is-zero.tif").write_bytes(content)
    for name in ("big", "int", "white-is-zero"):
        np.testing.assert_array_equal(grey_of(tmp_path / f"{name}.tif"), want, err_msg=name)


def test_twelve_bits_span_black_to_white(tmp_path):
    values = noise(8, 8, 1, dtype=np.uint16) % 4096
    first, second = values.reshape(-1, 2).T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8)
    (tmp_path / "a.tif").write_bytes(tiff(packed.tobytes(), 12, height=8, width=8))
    np.testing.assert_array_equal(grey_of(tmp_path / "a.tif"), np.rint(values / 4095 * 255))


@pytest.mark.parametrize("bad", [65536, 2**31 - 1, -1])
def test_integers_beyond_sixteen_bits_are_refused(tmp_path, bad):
    path = save(tmp_path / "a.tif", np.array([[0, bad]], dtype=np.int32))
    with pytest.raises(ImageError, match=rf"grey values from .*{bad}.* are outside of 0\.\.65535\. Scale them"):
        read_image(path)


@pytest.mark.parametrize(("top", "factor"), [(1.0, 255), (255.0, 1), (1.001, 1), (0.0, 255)])
def test_floats_are_0_to_1_unless_one_is_larger(tmp_path, top, factor):
    values = np.linspace(0, top, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    got = grey_of(save(tmp_path / "a.tif", values)).astype(float)
    assert np.abs(got - values * factor).max() <= 0.5001


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.01, 255.5, 4096])
def test_floats_outside_of_both_ranges_are_refused(tmp_path, bad):
    path = save(tmp_path / "a.tif", np.array([[0, bad]], dtype=np.float32))
    with pytest.raises(ImageError, match=r"neither within 0\.\.1 nor within 0\.\.255"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_alpha_is_composited_on_black(tmp_path, suffix):
    pixels = noise(HEIGHT, WIDTH, 4)
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", pixels, **options)
    np.testing.assert_array_equal(read_image(path), on_black(pixels[..., :3], pixels[..., 3]))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_with_alpha_is_composited_on_black(tmp_path, suffix):
    pixels = noise(HEIGHT, WIDTH, 2)
    path = save(tmp_path / f"a.{suffix}", pixels, "LA")
    np.testing.assert_array_equal(grey_of(path), on_black(pixels[..., :1], pixels[..., 1])[..., 0])


def palette_picture():
    indices = noise(HEIGHT, WIDTH, 1) % 5
    colours = noise(5, 3, 1, seed=1)
    picture = Image.fromarray(indices)
    picture.putpalette(colours.tobytes())
    return picture, colours[indices], indices


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_a_palette_gives_its_colours(tmp_path, suffix):
    picture, want, _ = palette_picture()
    picture.save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), want)


def test_transparent_palette_entries_are_composited_on_black(tmp_path):
    picture, want, indices = palette_picture()
    alpha = np.array([0, 255, 17, 128, 254], dtype=np.uint8)
    picture.save(tmp_path / "a.png", transparency=alpha.tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), on_black(want, alpha[indices]))


def test_a_palette_with_an_alpha_channel_is_composited_on_black(tmp_path):
    picture, want, _ = palette_picture()
    alpha = noise(HEIGHT, WIDTH, 1, seed=2)
    with_alpha = picture.convert("PA")
    with_alpha.putalpha(Image.fromarray(alpha))
    with_alpha.save(tmp_path / "a.tif")
    assert Image.open(tmp_path / "a.tif").mode == "PA"
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), on_black(want, alpha))


def test_a_transparent_colour_becomes_black(tmp_path):
    pixels = np.full((HEIGHT, WIDTH, 3), 200, dtype=np.uint8)
    pixels[2] = (1, 2, 3)
    path = save(tmp_path / "a.png", pixels, transparency=(200, 200, 200))
    want = np.where((pixels == 200).all(-1, keepdims=True), 0, pixels)
    np.testing.assert_array_equal(read_image(path), want)


def test_cmyk_is_converted(tmp_path):
    inks = noise(HEIGHT, WIDTH, 4).astype(float)
    Image.fromarray(inks.astype(np.uint8), mode="CMYK").save(tmp_path / "inks.tif")
    want = (255 - inks[..., :3]) * (255 - inks[..., 3:]) / 255
    assert np.abs(read_image(tmp_path / "inks.tif") - want).max() <= 1


@pytest.mark.skipif(PIL.__version__ < "12", reason="Pillow 11 says that its own YCbCr TIFF is truncated")
def test_ycbcr_is_converted(tmp_path):
    luma, blue, red = np.moveaxis(noise(HEIGHT, WIDTH), -1, 0).astype(float)
    stacked = np.stack([luma, blue, red], -1).astype(np.uint8)
    Image.fromarray(stacked, mode="YCbCr").save(tmp_path / "video.tif")
    want = np.stack(  # ITU-R BT.601, full range
        [
            luma + 1.402 * (red - 128),
            luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
            luma + 1.772 * (blue - 128),
        ],
        -1,
    )
    assert np.abs(read_image(tmp_path / "video.tif") - want.clip(0, 255)).max() <= 1


def test_sixteen_bit_colour_is_within_one_level(tmp_path):
    samples = noise(HEIGHT, WIDTH, 3, dtype=np.uint16)
    (tmp_path / "a.tif").write_bytes(
        tiff(samples.tobytes(), 16, height=HEIGHT, width=WIDTH, photometric=2, per_pixel=3)
    )
    assert np.abs(read_image(tmp_path / "a.tif") - samples / 257).max() <= 1


def test_a_smooth_jpeg_is_close_to_what_was_saved(tmp_path):
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    pixels = np.stack(
        [np.broadcast_to(ramp, (64, 64)), np.broadcast_to(ramp[:, None], (64, 64)), np.full((64, 64), 90)], -1
    )
    path = save(tmp_path / "a.jpg", pixels.astype(np.uint8), quality=98)
    assert np.abs(read_image(path).astype(float) - pixels).max() <= 8  # JPEG at quality 98


def test_a_colour_space_that_needs_a_profile_is_refused(tmp_path):
    Image.new("LAB", (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="colour mode LAB is not supported; save it as an 8-bit RGB PNG"):
        read_image(tmp_path / "a.tif")
