import warnings

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from convlora.data.pixels.images import image_size, read_image
from convlora.data.scientific.dicom import find_series
from convlora.data.scientific.grids import require_equal_grids
from convlora.data.scientific.nifti import open_nifti
from convlora.data.scientific.parts import StackImage
from convlora.data.settings import ImageLimits
from convlora.errors import ImageError, MaskError
from tests.data.scientific.makers import dicom_dataset, percentile_window, ramp, save_dicom, save_series, through

LIMITS = ImageLimits()
SHAPE = (6, 4, 5)


def only(path, limits=LIMITS):
    (series,), left_out = find_series(path, limits)
    assert left_out == []
    return series


def pages(series):
    return np.stack([series.page(i, LIMITS)[..., 0] for i in range(series.count)])


@pytest.mark.parametrize("suffix", [".dcm", ""])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_slices_come_from_the_feet_up_whatever_their_names_and_numbers(tmp_path, dtype, suffix):
    values = ramp(SHAPE, dtype)
    series = only(save_series(tmp_path / "ct", values, suffix=suffix, Modality="MR"))
    assert (series.count, series.size, series.unit) == (6, (4, 5), "slice")
    np.testing.assert_array_equal(pages(series), values)
    assert pages(series).dtype == np.dtype(series.dtype)
    assert image_size(StackImage(series, 0)) == (4, 5)
    picture = read_image(StackImage(series, 2))
    want = values[2] if dtype == "uint8" else through(values[2], *percentile_window(values))
    np.testing.assert_array_equal(picture, np.repeat(want[..., None], 3, axis=2))


def test_series_that_run_down_or_across_are_sorted_along_their_normal(tmp_path):
    values = ramp((3, 4, 5), np.uint16)
    for name, direction, step in (
        ("down", (1, 0, 0, 0, -1, 0), (0, 0, 1)),
        ("coronal", (1, 0, 0, 0, 0, -1), (0, 1, 0)),
    ):
        normal = np.cross(direction[:3], direction[3:])
        for i in (2, 0, 1):
            position = tuple(float(7 + i * value) for value in step)
            save_dicom(tmp_path / name / f"{i}.dcm", values[i], position=position, direction=direction, number=9 - i)
        order = slice(None) if np.dot(normal, step) > 0 else slice(None, None, -1)
        np.testing.assert_array_equal(pages(only(tmp_path / name)), values[order])


def test_ct_is_in_hounsfield_units_through_the_soft_tissue_window(tmp_path):
    stored = ramp(SHAPE, np.uint16) % 4096
    series = only(
        save_series(tmp_path / "ct", stored, RescaleSlope=1, RescaleIntercept=-1024, BitsStored=12, HighBit=11)
    )
    assert series.dtype == "int16" and series.bits == 12
    np.testing.assert_array_equal(pages(series), stored.astype(int) - 1024)
    want = through(stored[3].astype(int) - 1024, -160, 240)
    np.testing.assert_array_equal(read_image(StackImage(series, 3))[..., 0], want)
    lung = through(stored[3].astype(int) - 1024, -1350, 150)
    np.testing.assert_array_equal(read_image(StackImage(series, 3, "lung"))[..., 0], lung)


def test_each_slice_has_its_own_slope(tmp_path):
    stored = ramp((3, 4, 5), np.int16)
    slopes = [0.5, 2.0, 3.25]
    for i, slope in enumerate(slopes):
        more = {"RescaleSlope": slope, "RescaleIntercept": i, "Modality": "PT"}
        save_dicom(tmp_path / f"{i}.dcm", stored[i], position=(0, 0, i), **more)
    want = stored * np.array(slopes)[:, None, None] + np.arange(3)[:, None, None]
    series = only(tmp_path)
    assert series.dtype == "float32"
    np.testing.assert_allclose(pages(series), want, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_monochrome1_is_inverted(tmp_path, dtype):
    stored = ramp((4, 5), dtype)
    path = save_dicom(tmp_path / "a.dcm", stored, PhotometricInterpretation="MONOCHROME1", Modality="DX", position=None)
    series = only(path)
    top = {"uint8": 255, "uint16": 65535, "int16": -1}[dtype]
    np.testing.assert_array_equal(pages(series)[0], top - stored.astype(int))
    assert (series.unit, series.count) == ("", 1)


def test_colour_is_rgb_and_stays_as_it_is(tmp_path):
    colours = ramp((4, 5, 3), np.uint8)
    series = only(save_dicom(tmp_path / "a.dcm", colours, position=None, Modality="US"))
    np.testing.assert_array_equal(read_image(StackImage(series, 0)), colours)
    planes = dicom_dataset(colours, position=None, Modality="US")
    planes.PlanarConfiguration, planes.PixelData = 1, colours.transpose(2, 0, 1).tobytes()
    planes.save_as(tmp_path / "planes.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_image(StackImage(only(tmp_path / "planes.dcm"), 0)), colours)


def test_frames_of_one_file_are_slices_in_the_order_of_their_positions(tmp_path):
    values = ramp((3, 4, 5), np.int16)
    header = dicom_dataset(values, position=None, Modality="MR")
    heights, slopes = (5.0, 1.0, 3.0), (1, 2, 3)
    groups = []
    for height, slope in zip(heights, slopes, strict=True):
        group, position, rescale = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, height]
        rescale.RescaleSlope, rescale.RescaleIntercept = slope, -1
        group.PlanePositionSequence = Sequence([position])
        group.PixelValueTransformationSequence = Sequence([rescale])
        groups.append(group)
    shared, plane, measure = Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient, measure.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([plane]), Sequence([measure])
    header.SharedFunctionalGroupsSequence = Sequence([shared])
    header.PerFrameFunctionalGroupsSequence = Sequence(groups)
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    series = only(tmp_path / "a.dcm")
    want = [values[i].astype(float) * slopes[i] - 1 for i in (1, 2, 0)]
    np.testing.assert_array_equal(pages(series), np.stack(want))
    assert [frame for _, frame in series.geometry(0).instances] == [1, 2, 0]


def test_frames_without_positions_keep_their_order(tmp_path):
    values = ramp((12, 4, 5), np.uint8)
    series = only(save_dicom(tmp_path / "a.dcm", values, position=None, Modality="US"))
    np.testing.assert_array_equal(pages(series), values)
    assert series.unit == "slice"


def test_series_in_one_folder_are_told_apart_and_other_files_are_told_of(tmp_path):
    one, two = ramp((2, 4, 5), np.int16), ramp((3, 4, 5), np.int16, seed=1)
    save_series(tmp_path, one, series="1.2.3")
    save_series(tmp_path, two, series="1.2.4", suffix="")
    scout = save_dicom(tmp_path / "scout", ramp((7, 3), np.int16), series="1.2.3")
    save_dicom(tmp_path / "report", one[0], Rows=0, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")
    (tmp_path / "DICOMDIR").write_bytes(scout.read_bytes())
    (tmp_path / "readme.txt").write_text("x")
    found, left_out = find_series(tmp_path, LIMITS)
    assert [(s.series, s.part, s.count, s.size) for s in found] == [
        ("1.2.3", 0, 2, (4, 5)),
        ("1.2.3", 1, 1, (7, 3)),
        ("1.2.4", 0, 3, (4, 5)),
    ]
    np.testing.assert_array_equal(pages(found[2]), two)
    assert left_out == [f"{tmp_path}: 1 DICOM files of SR are no images"]


def compressed(tmp_path, values, syntax, encode):
    header = dicom_dataset(values, Modality="MR")
    header.file_meta.TransferSyntaxUID = syntax
    header.PixelData = encapsulate([encode(values)])
    header["PixelData"].is_undefined_length = True
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    return tmp_path / "a.dcm"


def test_compressed_pictures_are_decoded_if_a_decoder_is_there(tmp_path):
    import io

    from pydicom.pixels import compress

    values = ramp((16, 12), np.uint8)

    def jpeg2000(pixels):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG2000", irreversible=False)
        return stream.getvalue()

    path = compressed(tmp_path, values, "1.2.840.10008.1.2.4.90", jpeg2000)
    np.testing.assert_array_equal(pages(only(path))[0], values)
    header = dicom_dataset(ramp((16, 12), np.uint16), Modality="MR")
    compress(header, RLELossless)
    header.save_as(tmp_path / "rle.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(pages(only(tmp_path / "rle.dcm"))[0], ramp((16, 12), np.uint16))


@pytest.mark.parametrize(
    ("syntax", "message"),
    [
        ("1.2.840.10008.1.2.4.57", "its compression cannot be decoded here .*pylibjpeg"),  # JPEG lossless
        ("1.2.840.10008.1.2.4.201", "its compression cannot be decoded here"),  # HTJ2K
        ("1.2.840.10008.1.2.4.100", "cannot be"),  # MPEG-2
        ("1.2.840.10008.1.2.1.99", "is deflated, which is not read; convert it"),
        ("1.2.3.4", "cannot be"),
    ],
)
def test_compressions_without_a_decoder_are_named(tmp_path, syntax, message):
    path = compressed(tmp_path, ramp((16, 12), np.uint8), syntax, lambda pixels: bytes(100))
    with pytest.raises(ImageError, match=rf"a\.dcm: .*{message}"):
        read_image(StackImage(only(path), 0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Rows": 65535, "Columns": 65535}, "megapixels, more than the 64 allowed"),
        ({"Rows": 900, "Columns": 900}, "damaged"),
        ({"NumberOfFrames": 2_000_000_000}, "frames are not 1 to"),
        ({"NumberOfFrames": 3}, "damaged"),
        ({"NumberOfFrames": -1}, "frames are not 1 to"),
        ({"SamplesPerPixel": 4}, "cannot be read"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "in PALETTE COLOR cannot be read"),
        ({"BitsAllocated": 12}, "bits stored in 12 cannot be read"),
        ({"BitsStored": 99}, "99 bits stored in 16"),
        ({"BitsStored": 12, "HighBit": 15}, r"the 12 bits of its values end at bit 15 \(HighBit\)"),
        ({"ImagePositionPatient": [1, 2]}, "ImagePositionPatient is not 3 numbers"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "rescaled by 0"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, change, message):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_dicom(tmp_path / "a.dcm", ramp((4, 5), np.int16), **change)
    with pytest.raises(ImageError, match=rf"a\.dcm: .*{message}"):
        series = only(tmp_path / "a.dcm")
        read_image(StackImage(series, series.count - 1))


def test_a_folder_without_pictures_says_what_it_holds(tmp_path):
    save_dicom(tmp_path / "report", ramp((4, 5), np.int16), Rows=0, Modality="SR")
    with pytest.raises(ImageError, match=r"holds no DICOM images \(1 of SR\)"):
        find_series(tmp_path, LIMITS)


def test_a_nifti_mask_fits_the_series_it_was_drawn_on_and_no_other(tmp_path):
    values = ramp((3, 4, 5), np.int16)
    series = only(save_series(tmp_path / "ct", values))
    # rows are 2 mm apart, columns 1 mm, slices 3 mm; LPS: columns run to the patient's left, rows to the back
    canonical = values[:, ::-1, ::-1].transpose(2, 1, 0)
    for moved in (0.0, 4.0):
        affine = np.diag([1.0, 2.0, 3.0, 1.0])
        affine[:3, 3] = (-(5 + 4), 7 - 2 * 3, 100 + moved)  # RAS of the last column of the last row of the first slice
        nib.Nifti1Image(canonical, affine).to_filename(tmp_path / f"{moved}.nii.gz")
    mask = open_nifti(tmp_path / "0.0.nii.gz", LIMITS)
    require_equal_grids(series, mask)
    np.testing.assert_array_equal(mask.page(1, LIMITS), series.page(1, LIMITS))
    with pytest.raises(MaskError, match=r"does not lie on the grid .*up to 4 mm apart"):
        require_equal_grids(series, open_nifti(tmp_path / "4.0.nii.gz", LIMITS))


def test_a_mask_of_unevenly_spaced_slices_must_lie_on_their_rows_and_columns(tmp_path):
    values = ramp((3, 4, 5), np.int16)
    places = [(5.0, -7.0, z) for z in (100.0, 103.0, 109.0)]
    for name, direction in (("supine", (1, 0, 0, 0, 1, 0)), ("prone", (-1, 0, 0, 0, -1, 0))):
        for number, place in enumerate(places):
            save_dicom(tmp_path / name / f"{number}.dcm", values[number], position=place, direction=direction)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = (-(5 + 4), 7 - 2 * 3, 100)
    nib.Nifti1Image(values[:, ::-1, ::-1].transpose(2, 1, 0), affine).to_filename(tmp_path / "a.nii.gz")
    mask = open_nifti(tmp_path / "a.nii.gz", LIMITS)
    require_equal_grids(only(tmp_path / "supine"), mask)
    with pytest.raises(MaskError, match="does not lie on the grid"):
        require_equal_grids(only(tmp_path / "prone"), mask)
