import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from convlora.data.pixels.masks import read_mask
from convlora.data.scientific.dicom import find_series
from convlora.data.scientific.dicom_seg import SegmentedSeries, read_segmentation, segmentation_classes
from convlora.data.scientific.parts import StackMask
from convlora.data.settings import ImageLimits
from convlora.errors import ImageError, MaskError
from tests.data.scientific.makers import ramp, save_series

LIMITS = ImageLimits()
SHAPE = (5, 8, 9)
LABELS = ("Liver", "Kidney", "Spleen")


def description(number, label):
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=codes.SCT.Liver,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
    )


def save_seg(path, folder, volume, labels=LABELS, kind="BINARY", keep=None):
    """`volume`: ids (z, H, W) from the feet up, or (z, H, W, segments); slices given to highdicom in a wild order."""
    files = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    wild = [int((float(file.ImagePositionPatient[2]) - 100) / 3) for file in files]
    chosen = range(len(files)) if keep is None else [i for i, z in enumerate(wild) if z in keep]
    options = {"omit_empty_frames": True}
    seg = highdicom.seg.Segmentation(
        source_images=[files[i] for i in chosen],
        pixel_array=volume[[wild[i] for i in chosen]],
        segmentation_type=kind,
        segment_descriptions=[description(i + 1, label) for i, label in enumerate(labels)],
        series_instance_uid=highdicom.UID(),
        series_number=9,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return path


@pytest.fixture
def series(tmp_path):
    save_series(tmp_path / "ct", ramp(SHAPE, np.int16))
    return tmp_path / "ct"


def masks(folder, *paths):
    (image,), _ = find_series(folder, LIMITS)
    files = tuple(read_segmentation(path) for path in paths)
    stack = SegmentedSeries(image, files, segmentation_classes(files))
    return stack, np.stack([read_mask(StackMask(stack, i)) for i in range(stack.count)])


def ids(seed=0):
    volume = ramp(SHAPE, np.uint8, seed) % 4
    volume[2] = 0  # a slice without any segment has no frames
    return volume


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_segments_lie_on_the_slices_they_refer_to(tmp_path, series, kind):
    volume = ids()
    stack, found = masks(series, save_seg(tmp_path / "seg.dcm", series, volume, kind=kind))
    assert stack.classes == ("background", *LABELS)
    np.testing.assert_array_equal(found, volume)


def test_fractions_count_from_one_half(tmp_path, series):
    fractions = (ramp(SHAPE, np.float32) + 500) / 2000
    _, found = masks(series, save_seg(tmp_path / "seg.dcm", series, fractions, labels=("Liver",), kind="FRACTIONAL"))
    sure = np.abs(fractions - 0.5) > 0.01
    np.testing.assert_array_equal(found[sure], (fractions > 0.5)[sure])


def test_a_segmentation_of_some_slices_leaves_the_others_background(tmp_path, series):
    volume = ids()
    _, found = masks(series, save_seg(tmp_path / "seg.dcm", series, volume, keep={1, 3}))
    for z in range(SHAPE[0]):
        np.testing.assert_array_equal(found[z], volume[z] if z in (1, 3) else 0)


def test_several_files_are_merged_by_their_labels(tmp_path, series):
    volume = ids()
    liver = save_seg(tmp_path / "liver.dcm", series, (volume == 1).astype(np.uint8), labels=("Liver",))
    rest = save_seg(
        tmp_path / "rest.dcm", series, np.where(volume > 1, volume - 1, 0).astype(np.uint8), labels=LABELS[1:]
    )
    stack, found = masks(series, rest, liver)
    assert set(stack.classes) == {"background", *LABELS}
    names = np.array(["background", *LABELS])
    np.testing.assert_array_equal(np.array(stack.classes)[found], names[volume])


def test_segments_that_overlap_are_refused_and_counted(tmp_path, series):
    volume = np.zeros((*SHAPE, 2), dtype=np.uint8)
    volume[1, 2:5, 2:6, 0] = 1
    volume[1, 4:7, 5:8, 1] = 1
    path = save_seg(tmp_path / "seg.dcm", series, volume, labels=LABELS[:2])
    with pytest.raises(MaskError, match=r"seg\.dcm: segments overlap in 1 pixels"):
        masks(series, path)


def test_a_segmentation_of_other_pictures_is_refused(tmp_path, series):
    path = save_seg(tmp_path / "seg.dcm", series, ids())
    save_series(tmp_path / "other", ramp((5, 8, 9), np.int16), series="1.2.77", spacing=4.5)
    with pytest.raises(MaskError, match=r"seg\.dcm: a frame refers to no slice of .*other"):
        masks(tmp_path / "other", path)
    save_series(tmp_path / "small", ramp((5, 8, 7), np.int16))
    with pytest.raises(MaskError, match="frames of 8 x 9 pixels do not lie on slices of 8 x 7"):
        masks(tmp_path / "small", path)


def test_other_dicom_is_no_segmentation(series):
    assert read_segmentation(sorted(series.iterdir())[0]) is None


def test_a_truncated_segmentation_is_refused(tmp_path, series):
    path = save_seg(tmp_path / "seg.dcm", series, ids())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 40])
    with pytest.raises((ImageError, MaskError), match=r"seg\.dcm"):
        masks(series, path)
