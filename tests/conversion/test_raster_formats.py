"""GeoJSON, colours, NIfTI and DICOM-SEG, read by the libraries of their fields."""

import json

import nibabel
import numpy as np
import pydicom
import pytest
import rasterio
import shapely
from highdicom.seg import segread
from PIL import Image
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from convlora.conversion.convert import convert_samples
from convlora.data.labels.format import LabelFormat
from convlora.data.samples import Sample
from convlora.data.scientific.dicom import find_series
from convlora.data.scientific.geotiff import GeoImage, open_geotiff
from convlora.data.scientific.nifti import open_nifti
from convlora.data.scientific.parts import StackImage
from convlora.data.settings import ImageLimits
from convlora.errors import DataError, MaskError
from tests.conversion.masks import LABELS, PICTURE, convert
from tests.data.scientific.makers import save_series

LIMITS = ImageLimits()


def random_ids(shape, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < 0.6, rng.integers(0, 3, shape), 0).astype(np.uint8)


def test_geojson_of_plain_images_is_in_pixels_and_exact(tmp_path):
    mask = random_ids((23, 31))
    out, notes = convert(tmp_path, [mask, PICTURE], "geojson")
    assert notes == ["2 images have no place on earth: coordinates are pixels, y downwards"]
    for name, ids in (("p0", mask), ("p1", PICTURE)):
        features = json.loads((out / f"{name}.geojson").read_text())["features"]
        shapes = [(shapely.geometry.shape(f["geometry"]), f["properties"]["class_id"]) for f in features]
        assert all(shape.is_valid for shape, _ in shapes)
        assert np.array_equal(rasterize(shapes, ids.shape), ids)
        assert all(f["properties"]["class"] == LABELS.classes[f["properties"]["class_id"]] for f in features)
        assert all(f["properties"]["classification"]["name"] == f["properties"]["class"] for f in features)


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", Affine(10, 0, 5e5, 0, -10, 5.4e6)),
        ("EPSG:32633", Affine(0.2, 0.1, 5e5, 0.1, -0.2, 5.4e6)),  # turned
        ("EPSG:4326", Affine(1e-4, 0, 13, 0, -1e-4, 52)),
        ("EPSG:3035", Affine(1000, 0, 4.3e6, 0, -1000, 3.3e6)),  # edges are bent in degrees
    ],
)
def test_geojson_of_a_geotiff_is_in_degrees_and_falls_back_onto_its_pixels(tmp_path, crs, transform):
    ids = np.kron(random_ids((9, 7)), np.ones((7, 9), dtype=np.uint8))
    profile = {"driver": "GTiff", "height": 63, "width": 63, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "r.tif", "w", **profile, crs=crs, transform=transform) as raster:
        raster.write(np.arange(63 * 63, dtype=np.uint8).reshape(1, 63, 63))
    Image.fromarray(ids).save(tmp_path / "m.png")
    image = GeoImage(open_geotiff(tmp_path / "r.tif", LIMITS), 0)
    notes = convert_samples([Sample("r", image, tmp_path / "m.png")], LABELS, "geojson", tmp_path / "out")
    assert notes == []
    features = json.loads((tmp_path / "out" / "r.geojson").read_text())["features"]
    shapes = []
    for feature in features:
        shape = shapely.geometry.shape(feature["geometry"])
        parts = shape.geoms if shape.geom_type == "MultiPolygon" else [shape]
        assert all(part.exterior.is_ccw and not any(hole.is_ccw for hole in part.interiors) for part in parts)
        assert -180 <= shape.bounds[0] <= shape.bounds[2] <= 180 and shape.bounds[1] >= -90
        shapes.append((transform_geom("EPSG:4326", crs, feature["geometry"]), feature["properties"]["class_id"]))
    assert np.array_equal(rasterize(shapes, ids.shape, transform=transform), ids)


def test_colours_are_a_palette_over_class_ids(tmp_path):
    mask = random_ids((9, 11))
    mask[0, 0] = 255
    labels = LabelFormat(LABELS.classes, "ids", 255, colours=((0, 0, 0), (10, 20, 30), (200, 0, 7)))
    out, notes = convert(tmp_path, [mask], "colours", labels=labels)
    assert notes == []
    with Image.open(out / "p0.png") as image:
        assert image.mode == "P" and np.array_equal(np.array(image), mask)
        expected = np.array([*labels.colours, *[(255, 255, 255)] * 253], dtype=np.uint8)[mask]
        assert np.array_equal(np.array(image.convert("RGB")), expected)
    lines = (out / "labelmap.txt").read_text().splitlines()
    assert lines[1:] == ["background:0,0,0::", "leaf:10,20,30::", "stem & root:200,0,7::", "ignore:255,255,255::"]


def test_colours_that_do_not_tell_classes_apart_are_refused(tmp_path):
    labels = LabelFormat(LABELS.classes, "ids", 255, colours=((0, 0, 0), (1, 1, 1), (1, 1, 1)))
    with pytest.raises(MaskError, match="leaf and stem & root have the same colour"):
        convert(tmp_path, [PICTURE], "colours", labels=labels)


@pytest.mark.parametrize("name", ["a:b", "two\nlines", "two\rlines", "#leaf", "ignore"])
def test_names_that_labelmap_txt_would_not_give_again_are_refused(tmp_path, name):
    with pytest.raises(MaskError, match=r"means something else in labelmap\.txt"):
        convert(tmp_path, [PICTURE], "colours", labels=LabelFormat(("background", name, "stem"), "ids", 255))


def volume_samples(folder, volume, name="v"):
    """Slices of a volume with random masks, and these, (slices, H, W)."""
    ids = random_ids((volume.count, *volume.size), seed=3)
    samples = []
    for i, mask in enumerate(ids):
        Image.fromarray(mask).save(folder / f"{name}{i}.png")
        samples.append(Sample(f"{name}{i}", StackImage(volume, i), folder / f"{name}{i}.png"))
    return samples, ids


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
def test_a_nifti_of_labels_lies_on_the_voxels_of_its_source(tmp_path, codes):
    rng = np.random.default_rng(1)
    turn = nibabel.orientations.axcodes2ornt(codes)
    values = rng.integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
    affine = np.array([[1.5, 0.1, 0, -40], [0, 2, 0.2, 30], [0.1, 0, 3, -7], [0, 0, 0, 1]])
    source = nibabel.Nifti1Image(values, affine).as_reoriented(turn)
    source.header.set_xyzt_units("mm")
    source.header["cal_max"] = 500
    nibabel.save(source, tmp_path / "v.nii.gz")
    samples, ids = volume_samples(tmp_path, open_nifti(tmp_path / "v.nii.gz", LIMITS))
    notes = convert_samples(samples[::-1], LABELS, "nifti", tmp_path / "out")
    assert notes == []
    source, written = nibabel.load(tmp_path / "v.nii.gz"), nibabel.load(tmp_path / "out" / "v.nii.gz")
    assert written.get_data_dtype() == np.uint8 and written.shape == source.shape
    assert np.array_equal(written.affine, source.affine)
    for key in ("qform_code", "sform_code", "xyzt_units", "pixdim"):
        assert np.array_equal(written.header[key], source.header[key]), key
    assert written.header["cal_max"] == 0
    # the same world coordinates by nibabel alone: to RAS, then as radiologists look at it
    canonical = np.asarray(nibabel.as_closest_canonical(written).dataobj)
    assert np.array_equal(canonical[::-1, ::-1].transpose(2, 1, 0), ids)
    assert '1 230 159 0 1 1 1 "leaf"' in (tmp_path / "out" / "labels.txt").read_text()


def test_slices_without_a_mask_are_told_of_and_are_background(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 3), dtype=np.int16), np.eye(4)), tmp_path / "v.nii")
    samples, ids = volume_samples(tmp_path, open_nifti(tmp_path / "v.nii", LIMITS))
    (note,) = convert_samples(samples[:2], LABELS, "nifti", tmp_path / "out")
    assert note.startswith("1 slices have no mask and are background")
    written = np.asarray(nibabel.load(tmp_path / "out" / "v.nii.gz").dataobj)
    assert (written > 0).sum() == (ids[:2] > 0).sum()


def test_a_dicom_segmentation_refers_to_its_slices(tmp_path):
    save_series(tmp_path / "ct", np.arange(192, dtype=np.int16).reshape(4, 6, 8))
    (series,), _ = find_series(tmp_path / "ct", LIMITS)
    samples, ids = volume_samples(tmp_path, series)
    assert convert_samples(samples, LABELS, "dicom-seg", tmp_path / "out") == []
    (path,) = (tmp_path / "out").iterdir()
    read = segread(path)
    assert [(s.SegmentNumber, s.SegmentLabel) for s in read.SegmentSequence] == [(1, "leaf"), (2, "stem & root")]
    uids = [pydicom.dcmread(one.path).SOPInstanceUID for one in series.instances]
    pixels = read.get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.array_equal(pixels, ids)
    source = pydicom.dcmread(series.instances[0].path)
    assert read.FrameOfReferenceUID == source.FrameOfReferenceUID and read.PatientID == source.PatientID


def test_ignored_pixels_are_background_in_a_dicom_segmentation_and_stay_in_a_nifti(tmp_path):
    save_series(tmp_path / "ct", np.arange(192, dtype=np.int16).reshape(4, 6, 8))
    (series,), _ = find_series(tmp_path / "ct", LIMITS)
    samples, ids = volume_samples(tmp_path, series)
    ids[1, 2:4] = 255
    Image.fromarray(ids[1]).save(samples[1].mask)
    notes = convert_samples(samples, LABELS, "dicom-seg", tmp_path / "out")
    assert notes == ["16 ignored pixels are background now, because dicom-seg knows none"]
    (path,) = (tmp_path / "out").iterdir()
    uids = [pydicom.dcmread(one.path).SOPInstanceUID for one in series.instances]
    pixels = segread(path).get_pixels_by_source_instance(uids, combine_segments=True)
    assert np.array_equal(pixels, np.where(ids == 255, 0, ids))
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 1), dtype=np.int16), np.eye(4)), tmp_path / "v.nii")
    (sample,), (mask,) = volume_samples(tmp_path, open_nifti(tmp_path / "v.nii", LIMITS), name="n")
    mask[0] = 255
    Image.fromarray(mask).save(sample.mask)
    assert convert_samples([sample], LABELS, "nifti", tmp_path / "nifti") == []
    assert np.count_nonzero(np.asarray(nibabel.load(tmp_path / "nifti" / "v.nii.gz").dataobj) == 255) == mask.shape[1]


def test_what_is_no_volume_is_refused_and_leaves_nothing(tmp_path):
    for target, name in (("nifti", "NIfTI volume"), ("dicom-seg", "DICOM series")):
        with pytest.raises(DataError, match=rf"p0.png is no slice of a {name}"):
            convert(tmp_path / target, [PICTURE], target)
        assert sorted(path.name for path in (tmp_path / target).iterdir()) == ["images", "masks"]
