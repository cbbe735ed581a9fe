"""Each kind of scientific images, from training to masks in the geometry of its files, by the documented commands."""

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import rasterio
import tifffile
from PIL import Image

from tests.cli.commands import convlora
from tests.data.scientific.makers import save_geotiff, save_nifti, save_series
from tests.data.scientific.test_dicom_seg import save_seg
from tests.data.scientific.test_vectors import box, geojson

SLICES, HEIGHT, WIDTH = 3, 36, 44
CODES = ("RAS", "LPS", "PIR", "SAL")


def scene(seed):
    """A volume (z, H, W) of a bright block in noise, and the block; without symmetries."""
    rng = np.random.default_rng(seed)
    inside = np.zeros((SLICES, HEIGHT, WIDTH), dtype=np.uint8)
    top, left = rng.integers(3, 12, 2)
    inside[:, top : top + 16, left : left + 24] = 1
    return (rng.normal(-300, 40, inside.shape) + 600.0 * inside).astype(np.int16), inside


SCENES = [scene(seed) for seed in range(4)]


@dataclass(frozen=True)
class Files:
    images: Path
    masks: Path
    save_as: str = ""


def nifti(folder):
    for i, volumes in enumerate(SCENES):
        for part, volume in zip(("images", "masks"), volumes, strict=True):
            save_nifti(folder / part / f"v{i}.nii.gz", volume.transpose(2, 1, 0)[::-1, ::-1], CODES[i])
    return Files(folder / "images", folder / "masks", "nifti")


def dicom(folder):
    for i, (volume, inside) in enumerate(SCENES):
        save_series(folder / "images" / f"v{i}", volume, series=f"1.2.{i}")
        save_seg(folder / "masks" / f"drawn{9 - i}.dcm", folder / "images" / f"v{i}", inside, labels=("Liver",))
    return Files(folder / "images", folder / "masks", "dicom-seg")


def geotiff(folder):
    for i, (volume, inside) in enumerate(SCENES):
        save_geotiff(folder / "images" / f"v{i}.tif", volume[:1], transform=(0.5, 0, 733601 + 40 * i, 0, -0.5, 3725139))
        rows, columns = np.nonzero(inside[0])
        ring = box(columns.min() + 80 * i, rows.min(), columns.max() + 80 * i + 1, rows.max() + 1)
        geojson(folder / f"v{i}.geojson", [(ring, {"class": "roof"})])
    whole = [json.loads((folder / f"v{i}.geojson").read_text()) for i in range(len(SCENES))]
    features = [feature for one in whole for feature in one["features"]]
    (folder / "town.geojson").write_text(json.dumps(whole[0] | {"features": features}))
    return Files(folder / "images", folder / "town.geojson")


def ome_tiff(folder):
    for i, volumes in enumerate(SCENES):
        for part, values in zip(("images", "masks"), (volumes[0].astype(np.float32), volumes[1]), strict=True):
            (folder / part).mkdir(exist_ok=True)
            tifffile.imwrite(
                folder / part / f"v{i}.ome.tif", values, metadata={"axes": "ZYX"}, photometric="minisblack"
            )
    return Files(folder / "images", folder / "masks")


def deep_png(folder):
    for i, (volume, inside) in enumerate(SCENES):
        for part, values in zip(("images", "masks"), ((volume + 600).astype(np.uint16), inside), strict=True):
            (folder / part).mkdir(exist_ok=True)
            Image.fromarray(values[0]).save(folder / part / f"v{i}.png")
    return Files(folder / "images", folder / "masks")


def done(capsys, *arguments):
    outcome = convlora(capsys, *arguments)
    assert outcome.code == 0, outcome.errors
    return outcome.out


def masks_in(folder, name):
    """The slices (z, H, W) of a volume's predicted masks, which hold something."""
    masks = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob(f"{name}_[zp]???.png"))])
    assert len(np.unique(masks)) == 2
    return masks


def check_nifti(files, predicted, written):
    for image in sorted(files.images.iterdir()):
        one, other = nibabel.load(image), nibabel.load(written / image.name)
        assert np.allclose(one.affine, other.affine) and one.shape == other.shape
        canonical = np.asarray(nibabel.as_closest_canonical(other).dataobj)
        assert np.array_equal(canonical[::-1, ::-1].transpose(2, 1, 0), masks_in(predicted, image.name[:2]))


def check_dicom(files, predicted, written):
    for i in range(len(SCENES)):
        seg = pydicom.dcmread(written / f"v{i}.dcm")
        heights = dict(enumerate(masks_in(predicted, f"v{i}")))
        frames = seg.pixel_array if seg.pixel_array.ndim == 3 else seg.pixel_array[None]
        for frame, item in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
            z = round((float(item.PlanePositionSequence[0].ImagePositionPatient[2]) - 100) / 3)
            assert np.array_equal(frame, heights.pop(z))
        assert not any(mask.any() for mask in heights.values())
        assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == f"1.2.{i}"


def check_geotiff(files, predicted, written):
    for image in sorted(files.images.iterdir()):
        with rasterio.open(image) as one, rasterio.open(written / image.name) as other:
            assert (one.crs, one.transform, one.shape) == (other.crs, other.transform, other.shape)


def check_stack(files, predicted, written):
    assert [masks_in(predicted, f"v{i}").shape for i in range(len(SCENES))] == [(SLICES, HEIGHT, WIDTH)] * len(SCENES)


def check_pictures(files, predicted, written):
    assert np.asarray(Image.open(predicted / "v0.png")).shape == (HEIGHT, WIDTH)


KINDS = {
    "nifti": (nifti, check_nifti),
    "dicom": (dicom, check_dicom),
    "geotiff": (geotiff, check_geotiff),
    "ome tiff": (ome_tiff, check_stack),
    "16-bit png": (deep_png, check_pictures),
}


@pytest.mark.parametrize("kind", KINDS)
def test_from_training_to_masks_in_the_geometry_of_the_files(capsys, workspace, tmp_path, kind):
    make, check = KINDS[kind]
    files = make(tmp_path)
    data = ["--images", files.images, "--masks", files.masks]
    done(capsys, "check", *data)
    quick = ["--model", workspace / "sam", "--max_steps", 4, "--batch_size", 2, "--learning_rate", 0.003]
    done(capsys, "train", *data, "--output", tmp_path / "run", *quick, "--device", "cpu", "--precision", "fp32")
    save_as = ["--save_as", files.save_as] if files.save_as else []
    predicted = tmp_path / "predicted"
    done(capsys, "predict", tmp_path / "run", files.images, "--output", predicted, "--precision", "fp32", *save_as)
    written = tmp_path / f"predicted-{files.save_as}" if files.save_as else predicted
    check(files, predicted, written)
    if kind in ("nifti", "dicom", "geotiff"):  # what was written lies on the images, and is what is predicted
        again = ["--images", files.images, "--masks", written, "--output", tmp_path / "again"]
        done(capsys, "evaluate", tmp_path / "run", *again, "--precision", "fp32")
        told = json.loads((tmp_path / "again" / "metrics.json").read_text())
        assert told["scores"]["pixel_accuracy"] == 1
