"""Files with changed, missing or added bytes raise nothing but errors of this package, quickly."""

import io
import resource
import time
import warnings
import zlib

import numpy as np
import pyogrio
import pytest
import shapely
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import compress
from pydicom.uid import RLELossless

from convlora.data.pixels.images import read_image
from convlora.data.pixels.masks import read_mask
from convlora.data.readers.finding import find_data
from convlora.data.readers.pairing import find_images
from convlora.data.scientific.dicom import find_series
from convlora.data.scientific.dicom_seg import SegmentedSeries, read_segmentation, segmentation_classes
from convlora.data.scientific.expanding import Reading
from convlora.data.scientific.parts import StackMask
from convlora.data.settings import DataSettings, ImageLimits
from convlora.errors import ConvloraError
from tests.data.files import corrupted
from tests.data.scientific.makers import dicom_dataset, ramp, save_dicom, save_geotiff, save_nifti, save_series
from tests.data.scientific.test_dicom_seg import LABELS, save_seg
from tests.data.scientific.test_vectors import box, geojson, on_earth

LIMITS = ImageLimits(max_pixels=10_000_000)
VARIANTS = 100  # of each of the 20 kinds: at least 300 of TIFF, GeoTIFF, NIfTI, DICOM and outlines
SOAK = 24_000


def tiff(path, **options):
    tifffile.imwrite(path, ramp((3, 24, 31), "uint16"), photometric="minisblack", **options)


def jpeg2000(path):
    stream = io.BytesIO()
    Image.fromarray(ramp((24, 31), np.uint8)).save(stream, "JPEG2000")
    header = dicom_dataset(ramp((24, 31), np.uint8))
    header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.90"
    header.PixelData = encapsulate([stream.getvalue()])
    header["PixelData"].is_undefined_length = True
    header.save_as(path, enforce_file_format=True)


def rle(path):
    header = dicom_dataset(ramp((24, 31), np.uint16))
    compress(header, RLELossless)
    header.save_as(path, enforce_file_format=True)


def seg(path):
    folder = path.parent / "ct"
    if not folder.exists():
        save_series(folder, ramp((5, 8, 9), np.int16))
    save_seg(path, folder, ramp((5, 8, 9), np.uint8) % 4, labels=LABELS)


def outlines(path):
    shapes = shapely.to_wkb(np.array([shapely.Polygon(on_earth(box(1, 2, 9, 12)))] * 3))
    values = [np.array(["a", "b", "c"], dtype=object)]
    pyogrio.raw.write(path, shapes, values, ["class"], geometry_type="Polygon", crs="EPSG:32616")


TILES = {"tiled": True, "blockxsize": 16, "blockysize": 16}
MAKERS = {
    "tiff": ("a.tif", tiff),
    "tiff deflate": ("a.tif", lambda path: tiff(path, compression="zlib", predictor=True)),
    "tiff lzw": ("a.tif", lambda path: tiff(path, compression="lzw", tile=(16, 16))),
    "big tiff": ("a.tif", lambda path: tiff(path, bigtiff=True)),
    "ome": ("a.ome.tif", lambda path: tiff(path, metadata={"axes": "ZYX"})),
    "imagej": ("a.tif", lambda path: tiff(path, imagej=True, metadata={"axes": "ZYX"})),
    "geotiff": ("a.tif", lambda path: save_geotiff(path, ramp((3, 24, 31), np.uint16), nodata=7)),
    "geotiff deflate": (
        "a.tif",
        lambda path: save_geotiff(path, ramp((3, 24, 31), np.uint8), compress="deflate", **TILES),
    ),
    "geotiff lzw": (
        "a.tif",
        lambda path: save_geotiff(path, ramp((1, 24, 31), np.float32), compress="lzw", predictor=3),
    ),
    "nifti": ("a.nii", lambda path: save_nifti(path, ramp((24, 31, 5), np.int16))),
    "nifti gz": ("a.nii.gz", lambda path: save_nifti(path, ramp((24, 31, 5), np.int16))),
    "dicom": ("a.dcm", lambda path: save_dicom(path, ramp((24, 31), np.int16), RescaleSlope=2, RescaleIntercept=3)),
    "dicom frames": ("a.dcm", lambda path: save_dicom(path, ramp((4, 24, 31), np.uint8), position=None)),
    "dicom rle": ("a.dcm", rle),
    "dicom jpeg 2000": ("a.dcm", jpeg2000),
    "png": ("a.png", lambda path: Image.fromarray(ramp((24, 31), np.uint16)).save(path)),
    "seg": ("seg.dcm", seg),
    "geojson": ("a.geojson", lambda path: geojson(path, [(box(1, 2, 9, 12), {"class": "x"})] * 3)),
    "gpkg": ("a.gpkg", outlines),
    "shp": ("a.shp", outlines),
}


def read(kind, path):
    if kind == "seg":
        (series,), _ = find_series(path.parent / "ct", LIMITS)
        found = read_segmentation(path)
        if found is not None:
            stack = SegmentedSeries(series, (found,), segmentation_classes([found]))
            for i in range(stack.count):
                read_mask(StackMask(stack, i), LIMITS)
    elif kind in ("geojson", "gpkg", "shp"):
        settings = {"images": str(path.parent / "image.tif"), "masks": str(path)}
        for sample in find_data(DataSettings(**settings)).samples:
            read_mask(sample.mask, LIMITS)
    else:
        for sample in find_images(str(path), how=Reading(limits=LIMITS, intensity="percentile"))[:4]:
            picture = read_image(sample.image, LIMITS)
            assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3


def try_variants(folder, kind, count, seed):
    name, make = MAKERS[kind]
    path = folder / name
    make(path)
    if kind in ("geojson", "gpkg", "shp"):
        save_geotiff(folder / "image.tif", ramp((1, 24, 31), np.uint8))
    content, rng = path.read_bytes(), np.random.default_rng((seed, zlib.crc32(kind.encode())))
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read(kind, path)
        for variant in range(count):
            path.write_bytes(corrupted(content, rng))
            started = time.process_time()  # not the clock: other processes may hold the machine
            try:
                read(kind, path)
            except ConvloraError as error:
                refused += 1
                assert name in str(error) or "image.tif" in str(error), error
                assert "\n" not in str(error)
            except BaseException:
                path.rename(path.with_name(f"failed-{variant}-{name}"))
                raise
            assert time.process_time() - started < 1, f"variant {variant} of {kind}"
    return refused


@pytest.mark.parametrize("kind", MAKERS)
def test_corrupted_files_raise_nothing_but_our_errors_within_a_second(tmp_path, kind):
    count = VARIANTS * 3 // 2 if "nifti" in kind else VARIANTS
    refused = try_variants(tmp_path, kind, count, seed=0)
    assert count / 20 < refused < count  # some were broken indeed, and some were not


@pytest.mark.soak
def test_many_corrupted_files_neither_crash_nor_hang_nor_fill_the_memory(tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind in MAKERS:
        (tmp_path / kind).mkdir()
        try_variants(tmp_path / kind, kind, -(-SOAK // len(MAKERS)), seed=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB
