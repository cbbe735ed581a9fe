import contextlib
import struct
import time
import warnings

import numpy as np
import pytest
import rasterio
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from convlora.data.pixels.images import image_size, read_image
from convlora.data.pixels.masks import read_mask
from convlora.data.scientific.kinds import image_kind, mask_kind
from convlora.data.scientific.parts import StackImage, StackMask
from convlora.data.scientific.tiff import open_tiff
from convlora.data.scientific.tiff_tags import tiff_kind
from convlora.data.settings import ImageLimits
from convlora.errors import ImageError, MaskError
from tests.data.files import STORED, tiff
from tests.data.scientific.makers import percentile_window, ramp, through

LIMITS = ImageLimits()
H, W = 6, 9


def pages(stack):
    return np.stack([stack.page(i, LIMITS) for i in range(stack.count)])


def write(path, values, **options):
    tifffile.imwrite(path, values, **{"photometric": "minisblack", **options})
    return path


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]
)
def test_pages_of_every_type_come_as_they_are(tmp_path, dtype, byteorder):
    values = ramp((4, H, W), dtype)
    stack = open_tiff(write(tmp_path / "a.tif", values, byteorder=byteorder), LIMITS)
    assert (stack.count, stack.size, stack.channels, stack.unit, stack.dtype) == (4, (H, W), 1, "page", dtype)
    np.testing.assert_array_equal(pages(stack)[..., 0], values)
    picture = read_image(StackImage(stack, 1))
    if dtype in ("bool", "uint8"):
        want = values[1] * np.uint8(255) if dtype == "bool" else values[1]
    else:
        want = through(values[1], *percentile_window(values))
    np.testing.assert_array_equal(picture, np.repeat(want[..., None], 3, axis=2))
    if dtype[0] != "f":
        np.testing.assert_array_equal(read_mask(StackMask(stack, 3)), values[3])


def test_half_floats_are_read_as_single(tmp_path):
    values = ramp((2, H, W), "float16")
    stack = open_tiff(write(tmp_path / "a.tif", values), LIMITS)
    np.testing.assert_array_equal(pages(stack)[..., 0], values.astype(np.float32))


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"rowsperstrip": 2}, {"predictor": True}])
def test_compressed_pages_are_the_same(tmp_path, compression, options):
    if compression in ("packbits", "lzma") and "predictor" in options:
        return
    values = ramp((3, H, W), "uint16")
    stack = open_tiff(write(tmp_path / "a.tif", values, compression=compression, **options), LIMITS)
    np.testing.assert_array_equal(pages(stack)[..., 0], values)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_colours_in_both_layouts(tmp_path, dtype, planar, big):
    values = ramp((2, H, W, 3), dtype)
    stored = values if planar == "contig" else np.moveaxis(values, -1, 1)
    path = write(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar, bigtiff=big)
    stack = open_tiff(path, LIMITS)
    assert (stack.count, stack.channels, stack.rgb) == (2, 3, (0, 1, 2))
    np.testing.assert_array_equal(pages(stack), values)
    want = [
        values[1, ..., c] if dtype == "uint8" else through(values[1, ..., c], *percentile_window(values[..., c]))
        for c in range(3)
    ]
    np.testing.assert_array_equal(read_image(StackImage(stack, 1)), np.stack(want, axis=-1))


@pytest.mark.parametrize("axes", ["TZCYX", "ZTCYX", "CZYX", "TCYX", "CTZYX", "ZCYX", "TZYX"])
def test_ome_axes_are_pages_and_channels(tmp_path, axes):
    lengths = {"T": 2, "Z": 3, "C": 3, "Y": H, "X": W}
    values = ramp(tuple(lengths[a] for a in axes), "uint8")
    path = write(tmp_path / "a.ome.tif", values, metadata={"axes": axes})
    assert tifffile.TiffFile(path).is_ome
    stack = open_tiff(path, LIMITS)
    channel = axes.find("C")
    want = values[..., None] if channel < 0 else np.moveaxis(values, channel, -1)
    np.testing.assert_array_equal(pages(stack), want.reshape(-1, H, W, want.shape[-1]))
    if channel >= 0:
        np.testing.assert_array_equal(read_image(StackImage(stack, 1)), want.reshape(-1, H, W, 3)[1])
        flat = open_tiff(path, LIMITS, as_mask=True)
        np.testing.assert_array_equal(pages(flat)[..., 0], values.reshape(-1, H, W))


def test_two_channels_are_no_picture_but_can_be_read_raw(tmp_path):
    values = ramp((3, 2, H, W), "uint16")
    part = StackImage(open_tiff(write(tmp_path / "a.ome.tif", values, metadata={"axes": "TCYX"}), LIMITS), 2)
    with pytest.raises(ImageError, match=r"a\.ome\.tif, page 2: has 2 channels.*--channels 2"):
        read_image(part)
    np.testing.assert_array_equal(part.read_channels(LIMITS), np.moveaxis(values[2], 0, -1))


@pytest.mark.parametrize("axes", ["ZYX", "TZYX", "TZCYX"])
def test_imagej_stacks_are_read_also_if_one_page_describes_all(tmp_path, axes):
    lengths = {"T": 2, "Z": 3, "C": 2, "Y": H, "X": W}
    values = ramp(tuple(lengths[a] for a in axes), "uint16")
    want = np.moveaxis(values, axes.find("C"), -1) if "C" in axes else values[..., None]
    path = write(tmp_path / "a.tif", values, imagej=True, metadata={"axes": axes})
    np.testing.assert_array_equal(pages(open_tiff(path, LIMITS)), want.reshape(-1, H, W, want.shape[-1]))
    content = path.read_bytes()
    first = struct.unpack("<I", content[4:8])[0]
    count = struct.unpack("<H", content[first : first + 2])[0]
    end = first + 2 + 12 * count
    path.write_bytes(content[:end] + bytes(4) + content[end + 4 :])  # no second page, as in files beyond 4 GB
    assert tiff_kind(path).more and image_kind(path) == "tiff"
    np.testing.assert_array_equal(pages(open_tiff(path, LIMITS)), want.reshape(-1, H, W, want.shape[-1]))


@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied(tmp_path, orientation):
    upright = ramp((H, W), "uint16")
    tag = [(274, "H", 1, orientation, True)]
    stack = open_tiff(
        write(tmp_path / "a.tif", np.ascontiguousarray(STORED[orientation](upright)), extratags=tag), LIMITS
    )
    assert image_size(StackImage(stack, 0)) == (H, W)
    np.testing.assert_array_equal(pages(stack)[0, ..., 0], upright)


def test_white_is_zero_is_inverted_and_no_mask(tmp_path):
    values = ramp((2, H, W), "uint16")
    stack = open_tiff(write(tmp_path / "a.tif", values, photometric="miniswhite"), LIMITS)
    np.testing.assert_array_equal(pages(stack)[..., 0], 65535 - values)
    with pytest.raises(MaskError, match="stores white as 0"):
        read_mask(StackMask(stack, 0))


def test_a_palette_gives_colours_of_an_image_and_numbers_of_a_mask(tmp_path):
    values = ramp((2, H, W), "uint8")
    table = ramp((3, 256), "uint16")
    stack = open_tiff(write(tmp_path / "a.tif", values, photometric="palette", colormap=table), LIMITS)
    np.testing.assert_array_equal(read_image(StackImage(stack, 1)), (table >> 8).T[values[1]])
    np.testing.assert_array_equal(read_mask(StackMask(stack, 1)), values[1])


def test_alpha_is_composited_on_black_and_no_mask(tmp_path):
    values = ramp((2, H, W, 4), "uint16")
    path = write(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    stack = open_tiff(path, LIMITS)
    want = np.rint(values[..., :3].astype(float) * values[..., 3:] / 65535)
    np.testing.assert_array_equal(pages(stack), want)
    with pytest.raises(MaskError, match="has an alpha channel"):
        read_mask(StackMask(stack, 0))


@pytest.mark.parametrize("rule", ["full", "0,1000", "percentile"])
def test_the_rule_decides_how_values_are_shown(tmp_path, rule):
    values = ramp((2, H, W), "uint16") % 4096
    stack = open_tiff(write(tmp_path / "a.tif", values), LIMITS)
    window = {"full": (0, 65535), "0,1000": (0, 1000), "percentile": percentile_window(values)}[rule]
    np.testing.assert_array_equal(read_image(StackImage(stack, 1, rule))[..., 0], through(values[1], *window))


def test_twelve_bits_are_full_at_4095(tmp_path):

    values = ramp((8, 8), "uint16") % 4096
    first, second = values.reshape(-1, 2).T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(packed.tobytes(), 12, height=8, width=8))
    stack = open_tiff(path, LIMITS)
    np.testing.assert_array_equal(pages(stack)[0, ..., 0], values)
    np.testing.assert_array_equal(read_image(StackImage(stack, 0, "full"))[..., 0], through(values, 0, 4095))


def test_which_files_are_pictures_as_ever(tmp_path):
    eight, sixteen = ramp((H, W, 3), "uint8"), ramp((H, W), "uint16")
    Image.fromarray(eight).save(tmp_path / "plain.tif")
    write(tmp_path / "written.tif", eight, photometric="rgb")
    write(tmp_path / "deep.tif", sixteen)
    write(tmp_path / "float.tif", sixteen.astype(np.float32))
    write(tmp_path / "pages.tif", np.stack([sixteen] * 2))
    write(tmp_path / "one.ome.tif", eight[..., 0], metadata={"axes": "YX"})
    (tmp_path / "broken.tif").write_bytes((tmp_path / "plain.tif").read_bytes()[:9])
    found = {path.name: (image_kind(path), mask_kind(path)) for path in tmp_path.iterdir()}
    assert found == {
        "plain.tif": (None, None),
        "written.tif": (None, None),
        "one.ome.tif": (None, None),
        "broken.tif": (None, None),
        "deep.tif": ("tiff", None),
        "float.tif": ("tiff", "tiff"),
        "pages.tif": ("tiff", "tiff"),
    }


def test_a_pyramid_is_its_full_size(tmp_path):
    values = ramp((64, 48), "uint16")
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        writer.write(values, subifds=1, photometric="minisblack")
        writer.write(values[::2, ::2], subfiletype=1, photometric="minisblack")
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        writer.write(values, photometric="minisblack", metadata=None)
        writer.write(values[::2, ::2], subfiletype=1, photometric="minisblack", metadata=None)
    for name in ("a.ome.tif", "b.tif"):
        stack = open_tiff(tmp_path / name, LIMITS)
        assert (stack.count, stack.size) == (1, (64, 48)), name
        np.testing.assert_array_equal(pages(stack)[0, ..., 0], values)


def test_pages_of_several_sizes_are_refused_wherever_they_are(tmp_path):
    shapes = {"ends": [(H, W), (H, W), (H + 1, W)], "middle": [(H, W)] * 3 + [(W, H)] + [(H, W)] * 4}
    for name, sizes in shapes.items():
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as writer:
            for size in sizes:
                writer.write(ramp(size, "uint16"), metadata=None, photometric="minisblack")
        with pytest.raises(ImageError, match=r"series of images|several sizes"):
            pages(open_tiff(tmp_path / f"{name}.tif", LIMITS))


def ome(pixels, doctype=""):
    return (
        f'<?xml version="1.0"?>{doctype}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="{W}" SizeY="{H}" '
        f"{pixels}</Pixels></Image></OME>"
    )


BOMB = '<!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ome('SizeC="1" SizeZ="1" SizeT="1"><TiffData/>', BOMB + "]>"), "declares entities"),
        (ome('SizeC="1" SizeZ="1" SizeT="999999999"><TiffData/>'), "tells of 999999999 planes"),
        (ome('SizeC="99999" SizeZ="99999" SizeT="99999"><TiffData/>'), "planes, more than"),
        (
            ome(
                'SizeC="1" SizeZ="2" SizeT="1"><TiffData IFD="0" PlaneCount="1"><UUID>urn:uuid:2</UUID></TiffData>'
                '<TiffData IFD="0" FirstZ="1" PlaneCount="1"><UUID FileName="../../../../etc/passwd">urn:uuid:1</UUID>'
                "</TiffData>"
            ),
            "tells of pages in other files|has 1 of the 2 pages",
        ),
    ],
)
def test_descriptions_that_lie_are_refused(tmp_path, text, message):
    path = write(tmp_path / "a.ome.tif", ramp((H, W), "uint16"), description=text, metadata=None)
    started = time.perf_counter()
    with pytest.raises(ImageError, match=message):
        open_tiff(path, LIMITS)
    assert time.perf_counter() - started < 1


def test_a_deflate_bomb_gives_no_more_than_its_page(tmp_path):
    import zlib

    packed = zlib.compress(bytes(300_000_000), 1)
    content = tiff(packed, 16, height=8, width=8)
    path = tmp_path / "a.tif"
    path.write_bytes(content.replace(struct.pack("<HHII", 259, 3, 1, 1), struct.pack("<HHII", 259, 3, 1, 8)))
    started = time.perf_counter()
    with contextlib.suppress(ImageError):
        assert read_image(StackImage(open_tiff(path, LIMITS), 0)).sum() == 0
    assert time.perf_counter() - started < 0.5


def test_missing_parts_are_refused_not_filled_with_black(tmp_path):
    path = write(tmp_path / "a.tif", ramp((3, 40, 40), "uint16"), metadata=None, rowsperstrip=8)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 100])
    with pytest.raises(ImageError, match=r"a\.tif: (damaged|holds)"):
        pages(open_tiff(path, LIMITS))
    options = {"height": 64, "width": 64, "count": 1, "dtype": "uint16", "tiled": True, "blockxsize": 16}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rasterio.open(tmp_path / "sparse.tif", "w", blockysize=16, SPARSE_OK=True, **options).close()
    with pytest.raises(ImageError, match="a part of its pixels is not in the file"):
        pages(open_tiff(tmp_path / "sparse.tif", LIMITS))


def test_the_limit_counts_the_pixels_of_a_page(tmp_path):
    path = write(tmp_path / "a.tif", ramp((5, H, W), "uint16"))
    open_tiff(path, ImageLimits(max_pixels=H * W))
    with pytest.raises(ImageError, match="megapixels, more than"):
        open_tiff(path, ImageLimits(max_pixels=H * W - 1))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    axes=st.permutations("TZC").flatmap(lambda order: st.integers(0, 3).map(lambda n: "".join(order[:n]))),
    lengths=st.tuples(*[st.integers(1, 4)] * 3),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
)
def test_any_order_of_axes_gives_the_planes_that_numpy_gives(tmp_path, axes, lengths, dtype):
    sizes = dict(zip("TZC", lengths, strict=True))
    values = ramp((*(sizes[a] for a in axes), 5, 7), dtype)
    path = write(tmp_path / "a.ome.tif", values, metadata={"axes": axes + "YX"})
    want = np.moveaxis(values, axes.find("C"), -1) if "C" in axes else values[..., None]
    np.testing.assert_array_equal(pages(open_tiff(path, LIMITS)), want.reshape(-1, 5, 7, want.shape[-1]))
