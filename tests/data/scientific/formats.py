"""Volumes, series, rasters and stacks of known pixels, written with the libraries of their fields."""

import numpy as np

from tests.data.known import IDS, IMAGES, NAMED, NAMES, corners, parts_of
from tests.data.scientific.makers import save_geotiff, save_nifti, save_series

VOLUME = np.stack([image[..., 0] for image in IMAGES]).astype(np.int16) * 4 - 100
"""(slices, rows, columns), as radiologists look at them; its masks are `IDS`."""


def _canonical(slices):
    return np.stack(slices).transpose(2, 1, 0)[::-1, ::-1]


def nifti(codes, dtype):
    def write(root):
        save_nifti(root / "images" / "v.nii.gz", _canonical(VOLUME), codes)
        save_nifti(root / "masks" / "v.nii.gz", _canonical(IDS), codes, dtype=dtype)
        window = {"intensity": "-100,920"}
        return {"images": str(root / "images"), "masks": str(root / "masks"), **NAMED, **window}

    return write


def dicom(root):
    import highdicom
    import pydicom

    save_series(root / "ct", VOLUME)
    files = [pydicom.dcmread(file) for file in sorted((root / "ct").iterdir())]
    files.sort(key=lambda file: file.ImagePositionPatient[2])
    code = highdicom.sr.CodedConcept("1", "99TEST", "a thing")
    segments = [
        highdicom.seg.SegmentDescription(number, name, code, code, "MANUAL") for number, name in enumerate(NAMES[1:], 1)
    ]
    about = {"series_instance_uid": "1.9.1", "series_number": 9, "sop_instance_uid": "1.9.2", "instance_number": 1}
    about |= {
        "manufacturer": "t",
        "manufacturer_model_name": "t",
        "software_versions": "1",
        "device_serial_number": "1",
    }
    (root / "seg").mkdir()
    highdicom.seg.Segmentation(
        source_images=files,
        pixel_array=np.stack(IDS),
        segmentation_type="BINARY",
        segment_descriptions=segments,
        **about,
    ).save_as(root / "seg" / "s.dcm")
    return {"images": str(root / "ct"), "masks": str(root / "seg"), "intensity": "-100,920"}


def geotiff(dtype):
    def write(root):
        for i, (image, ids) in enumerate(zip(IMAGES, IDS, strict=True)):
            save_geotiff(root / "images" / f"s{i}.tif", image.transpose(2, 0, 1))
            save_geotiff(root / "masks" / f"s{i}.tif", ids[None].astype(dtype))
        return {"images": str(root / "images"), "masks": str(root / "masks"), **NAMED}

    return write


def outlines_on_earth(suffix):
    """Polygons of pixels' runs in the reference system of the raster."""

    def write(root):
        import pyogrio
        import rasterio
        import shapely

        (root / "masks").mkdir()
        for i, (image, ids) in enumerate(zip(IMAGES, IDS, strict=True)):
            path = save_geotiff(root / "images" / f"s{i}.tif", image.transpose(2, 0, 1))
            with rasterio.open(path) as raster:
                place, crs = raster.transform, raster.crs.to_wkt()
            parts = list(parts_of(ids))
            shapes = [shapely.Polygon([place * point for point in corners(*part)]) for _, *part in parts]
            pyogrio.raw.write(
                root / "masks" / f"s{i}{suffix}",
                np.array([shapely.to_wkb(shape) for shape in shapes], dtype=object),
                [np.array([NAMES[class_id] for class_id, *_ in parts], dtype=object)],
                ["class"],
                geometry_type="Polygon",
                crs=crs,
            )
        return {"images": str(root / "images"), "masks": str(root / "masks")}

    return write


def tiff_pages(root):
    import tifffile

    for part, pages in (("images", np.stack([image[..., 0] for image in IMAGES])), ("masks", np.stack(IDS))):
        (root / part).mkdir()
        tifffile.imwrite(root / part / "v.tif", pages, photometric="minisblack")
    return {"images": str(root / "images"), "masks": str(root / "masks"), **NAMED, "intensity": "0,255"}


SLICED = ("nifti", "dicom", "tiff pages")
"""Beginnings of the names whose images are grey slices of one volume."""
