import gzip
import itertools
import struct
import time

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convlora.data.pixels.images import image_size, read_image
from convlora.data.pixels.masks import read_mask
from convlora.data.scientific import nifti
from convlora.data.scientific.grids import require_equal_grids
from convlora.data.scientific.nifti import open_nifti
from convlora.data.scientific.parts import StackImage, StackMask
from convlora.data.settings import ImageLimits
from convlora.errors import ImageError, MaskError, PairingError
from tests.data.scientific.makers import percentile_window, radiological, ramp, save_nifti, through

LIMITS = ImageLimits()
SHAPE = (5, 4, 3)
CODES = ["".join(a) for p in itertools.permutations(("RL", "AP", "SI")) for a in itertools.product(*p)]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("codes", CODES)
def test_every_orientation_shows_the_same_upright_slices(tmp_path, codes, suffix):
    canonical = ramp(SHAPE, np.int16)
    volume = open_nifti(save_nifti(tmp_path / f"a{suffix}", canonical, codes), LIMITS)
    want = radiological(canonical)
    assert (volume.count, volume.size) == (3, (4, 5))
    got = np.stack([volume.page(i, LIMITS)[..., 0] for i in range(volume.count)])
    np.testing.assert_array_equal(got, want)
    stored = np.asarray(nib.load(tmp_path / f"a{suffix}").dataobj)
    np.testing.assert_array_equal(volume.geometry(1).as_stored(want), stored)
    np.testing.assert_array_equal(volume.geometry(1).as_slices(stored), want)


def test_the_patients_right_is_left_and_the_front_is_on_top(tmp_path):
    canonical = np.zeros((6, 8, 2), dtype=np.uint8)
    canonical[5, 7, 1] = 200  # right, front, head
    volume = open_nifti(save_nifti(tmp_path / "a.nii", canonical, "LPI"), LIMITS)
    picture = read_image(StackImage(volume, 1))
    assert picture.shape == (8, 6, 3) and picture[0, 0].tolist() == [200] * 3 and picture.sum() == 600


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_values_of_every_type_and_byte_order_come_as_they_are(tmp_path, dtype, order):
    canonical = ramp(SHAPE, np.dtype(dtype))
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(dtype)
    nib.Nifti1Image(canonical.astype(order + dtype), np.eye(4), header).to_filename(tmp_path / "a.nii.gz")
    volume = open_nifti(tmp_path / "a.nii.gz", LIMITS)
    got = np.stack([volume.page(i, LIMITS)[..., 0] for i in range(3)])
    assert got.dtype == np.dtype(dtype) and volume.dtype == np.dtype(dtype).name
    np.testing.assert_array_equal(got, radiological(canonical))
    picture = read_image(StackImage(volume, 1, "auto" if dtype == "u1" else "percentile"))
    want = radiological(canonical)[1]
    want = want if dtype == "u1" else through(want, *percentile_window(canonical))
    np.testing.assert_array_equal(picture[..., 0], want)
    assert (picture == picture[..., :1]).all()


@pytest.mark.parametrize(("slope", "inter", "dtype"), [(1, -1024, "int32"), (0.5, 3, "float32"), (2, 0, "float32")])
def test_slope_and_intercept_are_applied(tmp_path, slope, inter, dtype):
    stored = ramp(SHAPE, np.int16)
    volume = open_nifti(save_nifti(tmp_path / "a.nii.gz", stored, slope=slope, inter=inter), LIMITS)
    page = volume.page(2, LIMITS)[..., 0]
    assert page.dtype == dtype == volume.dtype
    np.testing.assert_allclose(page, radiological(stored * np.float64(slope) + inter)[2], rtol=1e-6)
    np.testing.assert_allclose(page, radiological(nib.load(tmp_path / "a.nii.gz").get_fdata())[2], rtol=1e-6)


def test_masks_are_ids_and_broken_numbers_are_refused(tmp_path):
    ids = np.arange(60, dtype=np.int16).reshape(SHAPE)
    volume = open_nifti(save_nifti(tmp_path / "ids.nii.gz", ids), LIMITS)
    mask = read_mask(StackMask(volume, 2))
    assert mask.dtype == np.int32
    np.testing.assert_array_equal(mask, radiological(ids)[2])
    whole = open_nifti(save_nifti(tmp_path / "whole.nii.gz", ids.astype(np.float64)), LIMITS)
    np.testing.assert_array_equal(read_mask(StackMask(whole, 1)), radiological(ids)[1])
    broken = open_nifti(save_nifti(tmp_path / "broken.nii.gz", ids + 0.5), LIMITS)
    with pytest.raises(MaskError, match=r"broken\.nii\.gz, slice 1: 20 of 20 pixels are not whole numbers"):
        read_mask(StackMask(broken, 1))


def test_four_dimensions_need_a_choice_or_are_channels(tmp_path):
    canonical = ramp((*SHAPE, 2), np.int16)
    path = save_nifti(tmp_path / "a.nii.gz", canonical, "LPS")
    both = StackImage(open_nifti(path, LIMITS), 1)
    with pytest.raises(ImageError, match=r"slice 1: has 2 channels.*--volume.*--channels 2"):
        read_image(both)
    raw = both.read_channels(LIMITS)
    for number in range(2):
        want = radiological(canonical[..., number])[1]
        np.testing.assert_array_equal(raw[..., number], want)
        chosen = open_nifti(path, LIMITS, number)
        np.testing.assert_array_equal(chosen.page(1, LIMITS)[..., 0], want)
    with pytest.raises(ImageError, match=r"has no volume 2 \(--volume\); it has 2"):
        open_nifti(path, LIMITS, 2)


def test_a_packed_volume_is_unpacked_once_for_all_its_slices(tmp_path, monkeypatch):
    path = save_nifti(tmp_path / "a.nii.gz", ramp((8, 8, 30), np.int16))
    unpacked = []
    real = nifti.NiftiVolume._load
    monkeypatch.setattr(nifti.NiftiVolume, "_load", lambda self, n: unpacked.append(n) or real(self, n))
    for i in np.random.default_rng(0).permutation(30).tolist():
        read_image(StackImage(open_nifti(path, LIMITS), i))
    assert unpacked == [0]
    with gzip.open(path) as stream:
        content = stream.read()
    path.write_bytes(gzip.compress(content[:-1] + b"\x7f"))  # another file of the same name
    read_image(StackImage(open_nifti(path, LIMITS), 3))
    assert unpacked == [0, 0]


def header_of(shape, code=4, bits=16, magic=b"n+1\0", offset=352.0):
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, len(shape), *shape, *(1,) * (7 - len(shape)))
    struct.pack_into("<hh", header, 70, code, bits)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, offset)
    header[344:348] = magic
    return bytes(header)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header_of((32767, 32767, 32767)), "are more than the 512 million allowed"),
        (header_of((9000, 9000, 2)) + bytes(100), "81.0 megapixels|a part of its voxels"),
        (header_of((100, 100, 100)) + bytes(100), "a part of its voxels is not in the file"),
        (header_of((0, 4, 4)) + bytes(100), "cannot be read"),
        (header_of((-5, 4, 4)) + bytes(100), "cannot be read"),
        (header_of((4, 4, 4), code=32, bits=64) + bytes(900), "values of type complex64 cannot be shown"),
        (header_of((4, 4, 4), code=128, bits=24) + bytes(900), "cannot be shown"),
        (header_of((4, 4, 4), code=999) + bytes(900), "damaged|cannot be"),
        (header_of((4, 4, 4), magic=b"ni1\0") + bytes(900), r"another file \(\.img\)"),
        (header_of((4, 4, 4), offset=float("nan")) + bytes(900), "damaged|a part of its voxels"),
        (header_of((4, 4, 4), offset=1e30) + bytes(900), "damaged|a part of its voxels"),
        (b"", "not a NIfTI file"),
        (b"\x1f\x8b", "damaged"),
        (b"abc" * 300, "not a NIfTI file"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_headers_that_lie_are_refused_before_anything_is_unpacked(tmp_path, content, message, packed):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(content) if packed and content[:2] != b"\x1f\x8b" else content)
    started = time.perf_counter()
    with pytest.raises(ImageError, match=rf"a\.nii\.gz: .*({message})"):
        read_image(StackImage(open_nifti(path, LIMITS), 0))
    assert time.perf_counter() - started < 1


def test_a_gzip_bomb_behind_a_small_volume_is_not_unpacked(tmp_path):
    path = tmp_path / "a.nii.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(header_of((4, 4, 4)) + bytes(128))
        for _ in range(64):
            stream.write(bytes(1 << 22))
    started = time.perf_counter()
    assert read_image(StackImage(open_nifti(path, LIMITS), 0)).sum() == 0
    assert time.perf_counter() - started < 0.5


def test_sizes_are_known_without_unpacking_and_held_against_the_limits(tmp_path, monkeypatch):
    path = save_nifti(tmp_path / "a.nii.gz", ramp((9, 7, 3), np.int16))
    monkeypatch.setattr(nifti.NiftiVolume, "_load", lambda *_: pytest.fail("unpacked"))
    assert image_size(StackImage(open_nifti(path, LIMITS), 0)) == (7, 9)
    with pytest.raises(ImageError, match="megapixels, more than the"):
        open_nifti(path, ImageLimits(max_pixels=62))
    with pytest.raises(ImageError, match="megapixels, more than the"):
        image_size(StackImage(open_nifti(path, LIMITS), 0), ImageLimits(max_pixels=62))


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA", "PIL"])
def test_a_mask_in_another_orientation_on_the_same_grid_fits(tmp_path, codes):
    canonical = ramp(SHAPE, np.uint8)
    image = open_nifti(save_nifti(tmp_path / "image.nii.gz", canonical, "LAS"), LIMITS)
    mask = open_nifti(save_nifti(tmp_path / "mask.nii.gz", canonical, codes), LIMITS)
    require_equal_grids(image, mask)
    np.testing.assert_array_equal(mask.page(1, LIMITS), image.page(1, LIMITS))


def test_a_mask_on_another_grid_is_refused_and_told_apart(tmp_path):
    image = open_nifti(save_nifti(tmp_path / "image.nii.gz", ramp(SHAPE, np.int16)), LIMITS)
    short = open_nifti(save_nifti(tmp_path / "short.nii.gz", ramp((5, 4, 2), np.uint8)), LIMITS)
    wide = open_nifti(save_nifti(tmp_path / "wide.nii.gz", ramp((6, 4, 3), np.uint8)), LIMITS)
    moved = open_nifti(save_nifti(tmp_path / "moved.nii.gz", ramp(SHAPE, np.uint8), spacing=(1, 2, 3.5)), LIMITS)
    with pytest.raises(PairingError, match=r"short\.nii\.gz has 2 slices, but its image .*image\.nii\.gz has 3"):
        require_equal_grids(image, short)
    with pytest.raises(MaskError, match=r"wide\.nii\.gz does not lie on .* 4 x 6 pixels .* instead of 4 x 5"):
        require_equal_grids(image, wide)
    with pytest.raises(
        MaskError, match=r"moved\.nii\.gz does not lie on .* affine.* instead of .*, which is up to 1 mm"
    ):
        require_equal_grids(image, moved)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    codes=st.sampled_from(CODES),
    dtype=st.sampled_from(["uint8", "int16", "float32"]),
)
def test_any_volume_goes_to_slices_and_back(tmp_path, shape, codes, dtype):
    canonical = ramp(shape, dtype)
    volume = open_nifti(save_nifti(tmp_path / "a.nii", canonical, codes), LIMITS)
    slices = np.stack([volume.page(i, LIMITS)[..., 0] for i in range(volume.count)])
    stored = np.asarray(nib.load(tmp_path / "a.nii").dataobj)
    np.testing.assert_array_equal(volume.geometry(0).as_stored(slices), stored)
