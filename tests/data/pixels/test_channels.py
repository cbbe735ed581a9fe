import struct
import time
import zlib

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from convlora.data.pixels.channels import pixels_size, read_channels, read_pixels
from convlora.data.pixels.images import read_image
from convlora.data.readers.pairing import find_images, find_samples
from convlora.data.settings import DataSettings, ImageLimits
from convlora.errors import ImageError, PairingError, SettingsError
from tests.data.files import noise, save

LIMITS = ImageLimits()
TYPES = ["uint8", "uint16", "int16", "float32"]
LAYOUTS = {
    "planes": {"planarconfig": "separate", "photometric": "minisblack"},
    "pixels": {"planarconfig": "contig", "photometric": "minisblack"},
    "pages": {"photometric": "minisblack"},
    "tiles of pages": {"photometric": "minisblack", "tile": (16, 16), "compression": "zlib"},
    "compressed planes": {"planarconfig": "separate", "photometric": "rgb", "compression": "zlib"},
    "big-endian": {"planarconfig": "contig", "photometric": "minisblack", "byteorder": ">"},
    "imagej": {"imagej": True},
}


def array(channels=5, dtype="uint16", size=(20, 31), seed=0):
    values = np.random.default_rng(seed).normal(size=(*size, channels)) * 90
    return (np.abs(values) if dtype.startswith("u") else values).astype(dtype)


def write_tiff(path, values, layout):
    first = values if LAYOUTS[layout].get("planarconfig") == "contig" else np.moveaxis(values, -1, 0)
    tifffile.imwrite(path, first, **LAYOUTS[layout])
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
def test_channels_of_every_tiff_layout_are_what_was_written(tmp_path, layout, dtype):
    if layout == "imagej" and dtype == "int16":
        pytest.skip("ImageJ has no such type")
    values = array(dtype=dtype)
    path = write_tiff(tmp_path / "a.tif", values, layout)
    got = read_channels(path, LIMITS, 5)
    assert got.dtype == np.dtype(dtype) and got.flags.c_contiguous
    np.testing.assert_array_equal(got, values)
    assert pixels_size(path, LIMITS, 5) == (20, 31)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_a_geotiff_with_overviews_and_no_data_equals_what_gdal_reads(tmp_path, interleave):
    values = array(7, "int16", size=(64, 80))
    values[:9, :11, 2] = -999
    options = {"driver": "GTiff", "height": 64, "width": 80, "count": 7, "dtype": "int16", "nodata": -999}
    with rasterio.open(tmp_path / "a.tif", "w", interleave=interleave, compress="deflate", **options) as file:
        file.write(np.moveaxis(values, -1, 0))
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.build_overviews([2, 4])
    with rasterio.open(tmp_path / "a.tif") as file:
        want = np.moveaxis(file.read(masked=True).astype("float32").filled(np.nan), 0, -1)
    got = read_channels(tmp_path / "a.tif", LIMITS, 7)
    assert got.dtype == np.float32 and np.isnan(got).sum() == 99
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_orientation_in_a_file_is_applied_as_pillow_does(tmp_path, orientation, suffix):
    picture = Image.fromarray(noise(4, 6))
    exif = picture.getexif()
    exif[274] = orientation
    picture.save(tmp_path / f"a.{suffix}", exif=exif)
    picture.save(tmp_path / "b.png", exif=exif)
    with Image.open(tmp_path / "b.png") as again:
        want = np.asarray(ImageOps.exif_transpose(again))
    np.testing.assert_array_equal(read_channels(tmp_path / f"a.{suffix}"), want)
    assert pixels_size(tmp_path / f"a.{suffix}", LIMITS, 3) == want.shape[:2]


@pytest.mark.parametrize("dtype", [*TYPES, "float64", "int32", "int64", "float16", "bool", ">u2", ">f4"])
@pytest.mark.parametrize("layout", ["HWC", "CHW", "fortran"])
def test_arrays_of_every_layout_and_type_are_read(tmp_path, dtype, layout):
    values = (np.random.default_rng(0).normal(size=(20, 31, 5)) * 9).astype(dtype)
    stored = np.moveaxis(values, -1, 0) if layout == "CHW" else values
    np.save(tmp_path / "a.npy", np.asfortranarray(stored) if layout == "fortran" else np.ascontiguousarray(stored))
    native = np.dtype(dtype).newbyteorder("=").name
    want = {"bool": "uint8"}.get(native, native if native in TYPES else "float32")
    for channels in (5, None):
        got = read_channels(tmp_path / "a.npy", LIMITS, channels)
        assert got.dtype == np.dtype(want)
        np.testing.assert_array_equal(got, values.astype(want))
    assert pixels_size(tmp_path / "a.npy", LIMITS, 5) == (20, 31)


def test_the_wanted_number_tells_layouts_apart_and_what_is_not_sure_is_refused(tmp_path):
    values = np.arange(4 * 6 * 30, dtype="uint8").reshape(4, 30, 6)
    np.save(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(read_channels(tmp_path / "a.npy", LIMITS, 6), values)
    np.testing.assert_array_equal(read_channels(tmp_path / "a.npy", LIMITS, 4), np.moveaxis(values, 0, -1))
    with pytest.raises(ImageError, match=r"a\.npy: an array of shape \(4, 30, 6\) may be \(H, W, C\) or \(C, H, W\)"):
        read_channels(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.zeros((40, 30), "uint8"))
    assert read_channels(tmp_path / "b.npy", LIMITS, 1).shape == (40, 30, 1)
    for shape in [(40,), (2, 40, 30, 3), (40, 30, 50), (0, 30, 3)]:
        np.save(tmp_path / "c.npy", np.zeros(shape, "uint8"))
        with pytest.raises(ImageError, match=r"is no image|holds nothing"):
            read_channels(tmp_path / "c.npy")


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4), ("1", 1), ("P", 3)])
def test_pictures_give_the_channels_that_they_store(tmp_path, mode, channels):
    picture = Image.fromarray(noise(9, 7, 4)).convert("RGB" if mode == "P" else "RGBA").convert(mode)
    picture.save(tmp_path / "a.png")
    want = np.asarray(picture.convert({"1": "L", "P": "RGB"}.get(mode, mode))).reshape(9, 7, channels)
    np.testing.assert_array_equal(read_channels(tmp_path / "a.png", LIMITS, channels), want)


def test_16_bit_grey_is_not_scaled_and_16_bit_colour_is_not_cut_to_8_bits(tmp_path):
    values = noise(9, 7, 1, dtype=np.uint16)
    save(tmp_path / "a.png", values)
    np.testing.assert_array_equal(read_channels(tmp_path / "a.png")[..., 0], values)
    header = b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b"\0" + bytes(range(6))), b"IEND"]
    data = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(ImageError, match=r"b\.png: of 16-bit colour .* only 8 bits could be read"):
        read_channels(tmp_path / "b.png")


def test_without_a_number_of_channels_an_image_is_read_as_ever(tmp_path):
    path = save(tmp_path / "a.png", noise(9, 7))
    np.testing.assert_array_equal(read_pixels(path, LIMITS), read_image(path))


def test_another_number_of_channels_is_told_with_file_found_and_wanted(tmp_path):
    path = write_tiff(tmp_path / "a.tif", array(), "pixels")
    with pytest.raises(ImageError, match=r"a\.tif: has 5 channels, wanted 4\."):
        read_channels(path, LIMITS, 4)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_infinite_values_are_refused_and_nan_is_kept(tmp_path, value):
    values = array(3, "float64")
    values[2, 3, 1] = np.nan
    np.save(tmp_path / "a.npy", values)
    assert np.argwhere(np.isnan(read_channels(tmp_path / "a.npy"))).tolist() == [[2, 3, 1]]
    values[4, 5, 0] = value
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ImageError, match=r"a\.npy: 1 of 1860 values are infinite"):
        read_channels(tmp_path / "a.npy")


def test_stacks_and_other_tiffs_that_are_no_channels_are_refused(tmp_path):
    stack = np.zeros((5, 20, 30), "uint16")
    cases = {
        "z": ({"data": stack, "imagej": True, "metadata": {"axes": "ZYX"}}, "a stack of 5 images along slices"),
        "t": ({"data": stack, "ome": True, "metadata": {"axes": "TYX"}}, "a stack of 5 images along SizeT"),
        "many": ({"data": np.zeros((17, 20, 30), "uint8"), "photometric": "minisblack"}, "a stack of 17 images"),
        "more": ({"data": np.zeros((70, 20, 30), "uint8"), "photometric": "minisblack"}, "more than 64 pages"),
        "white": ({"data": stack[0], "photometric": "miniswhite"}, "MINISWHITE stores no channels"),
        "complex": ({"data": stack[0].astype("complex64")}, "are no channels"),
        "deep": ({"data": np.zeros((20, 30, 17), "uint8"), "planarconfig": "contig"}, "has 17 channels; at most 16"),
    }
    for name, (options, message) in cases.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", **options)
        with pytest.raises(ImageError, match=message):
            read_channels(tmp_path / f"{name}.tif")
    with tifffile.TiffWriter(tmp_path / "two.tif") as writer:
        writer.write(stack[0])
        writer.write(stack[0, :9])
    with pytest.raises(ImageError, match="its 2 pages differ"):
        read_channels(tmp_path / "two.tif")
    channels = {"data": stack, "ome": True, "metadata": {"axes": "CYX"}, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "c.tif", **channels)
    assert read_channels(tmp_path / "c.tif").shape == (20, 30, 5)


def test_a_missing_library_is_a_line_that_names_the_extra(tmp_path, monkeypatch):
    path = write_tiff(tmp_path / "a.tif", array(), "pixels")
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(SettingsError, match=r"needs tifffile, which is not installed .*convlora\[tiff\]"):
        read_channels(path)


def test_bombs_and_objects_are_refused_before_anything_is_read(tmp_path):
    def npy(header, body=b""):
        text = header.encode().ljust(118) + b"\n"
        (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body)
        return tmp_path / "a.npy"

    cases = {
        "{'descr': '<f4', 'fortran_order': False, 'shape': (100000, 100000, 3)}": "megapixels",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000, 1000, 3)}": "11999.* bytes|12000000 bytes",
        "{'descr': '|O', 'fortran_order': False, 'shape': (20, 20, 3)}": "holds object",
        "{'descr': '<c8', 'fortran_order': False, 'shape': (20, 20, 3)}": "holds complex64",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-20, -20, 3)}": "holds nothing",
        "{'descr': __import__('os'), 'fortran_order': False, 'shape': (2,)}": "damaged",
        "{" + 20_000 * " ": "damaged",
    }
    for header, message in cases.items():
        begin = time.perf_counter()
        with pytest.raises(ImageError, match=message) as raised:
            read_channels(npy(header))
        assert "\n" not in str(raised.value)
        assert time.perf_counter() - begin < 0.5
    tifffile.imwrite(tmp_path / "big.tif", array(4, "uint8", (300, 400)), photometric="rgb", compression="zlib")
    with pytest.raises(ImageError, match="megapixels"):
        read_channels(tmp_path / "big.tif", ImageLimits(max_pixels=100_000))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    np.save(folder / "a.npy", array())
    write_tiff(folder / "planes.tif", array(), "planes")
    write_tiff(folder / "tiles.tif", array(), "tiles of pages")
    return folder


@settings(max_examples=100, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_broken_bytes_give_an_error_of_ours_or_an_array(whole, tmp_path, data):
    source = data.draw(st.sampled_from(sorted(whole.iterdir())))
    content = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    broken = tmp_path / source.name
    broken.write_bytes(content[:cut])
    try:
        got = read_channels(broken, ImageLimits(max_pixels=1_000_000))
    except ImageError as error:
        assert str(broken) in str(error) and "\n" not in str(error)
    else:
        assert got.ndim == 3 and got.shape[2] <= 16


@pytest.mark.parametrize("name", ["planes.tif", "tiles.tif", "a.npy"])
def test_a_file_that_was_cut_off_is_never_filled_up_with_zeros(whole, tmp_path, name):
    content = (whole / name).read_bytes()
    for length in range(0, len(content) - 1, 97):
        (tmp_path / name).write_bytes(content[:length])
        try:
            got = read_channels(tmp_path / name, LIMITS, 5)
        except ImageError:
            continue
        np.testing.assert_array_equal(got, array())  # what is missing was behind the pixels


def test_a_part_without_raw_channels_says_so():
    class Part:
        def __str__(self):
            return "a part"

    with pytest.raises(ImageError, match="a part: gives a picture in RGB only"):
        read_channels(Part())


def test_npy_files_are_images_of_a_folder_or_a_table_only_with_channels(tmp_path):
    for i in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        np.save(tmp_path / "images" / f"s{i}.npy", array(5))
        save(tmp_path / "masks" / f"s{i}.png", np.zeros((20, 31), np.uint8))
    suffixes = (".png", ".npy")
    found = find_samples(str(tmp_path / "images"), str(tmp_path / "masks"), suffixes)
    assert [sample.image.name for sample in found] == ["s0.npy", "s1.npy", "s2.npy"]
    assert len(find_images(str(tmp_path / "images"), suffixes)) == 3
    with pytest.raises(PairingError, match=r"holds 3 \.npy\. Arrays are read with --channels"):
        find_samples(str(tmp_path / "images"), str(tmp_path / "masks"))
    (tmp_path / "list.csv").write_text("image,mask\nimages/s0.npy,masks/s0.png\n")
    assert len(find_samples(str(tmp_path / "list.csv"), None, suffixes)) == 1
    with pytest.raises(PairingError, match=r"1 files that are not images .*s0\.npy"):
        find_samples(str(tmp_path / "list.csv"), None)
    (tmp_path / "list.csv").write_text("image,mask\nimages/s0.npy,images/s1.npy\n")
    with pytest.raises(PairingError, match=r"1 files that are not images .*s1\.npy"):
        find_samples(str(tmp_path / "list.csv"), None, suffixes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": 0}, "channels=0 must be between 1 and 16"),
        ({"channels": 17}, "channels=17 must be between 1 and 16"),
        ({"channels": 2, "channel_statistics": "sam"}, "needs channels that begin with RGB, and channels=2"),
        ({"channels": 5, "channel_statistics": "imagenet"}, "must be one of data, sam"),
        ({"channel_statistics": "sam"}, "channel_statistics is for raw channels; give channels"),
        ({"display_channels": [0]}, "display_channels is for raw channels; give channels"),
        ({"channels": 5, "display_channels": [0, 1]}, "one or three numbers from 0 to 4"),
        ({"channels": 5, "display_channels": [0, 1, 5]}, "one or three numbers from 0 to 4"),
    ],
)
def test_settings_of_channels_that_contradict_each_other_are_told(values, message):
    (problem,) = DataSettings(images="x", **values).problems()
    assert message in problem
