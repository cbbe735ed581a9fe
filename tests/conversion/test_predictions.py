import nibabel
import numpy as np
import pytest
import rasterio
from PIL import Image
from pycocotools.coco import COCO
from rasterio.transform import Affine

from convlora.conversion.convert import convert_folder
from convlora.conversion.predictions import predicted_samples
from convlora.conversion.settings import ConvertMasksSettings
from convlora.data.labels.bits import IGNORED
from convlora.data.labels.format import LabelFormat
from convlora.data.pixels.masks import read_mask
from convlora.data.settings import ImageLimits
from convlora.errors import MaskError, PairingError
from tests.cli.commands import assert_one_line, convlora
from tests.conversion.masks import LABELS, PICTURE, save_samples

LIMITS = ImageLimits()
OVERLAPPING = LabelFormat(("background", "leaf", "stem & root"), "bits", IGNORED, multilabel=True)


def test_masks_and_images_add_up(tmp_path):
    save_samples(tmp_path, [PICTURE] * 3)
    images, masks = tmp_path / "images", tmp_path / "masks"
    (masks / "p1.png").unlink()
    for name in ("p0_overlay.png", "p0_probability_2.png", "p0_probability.png", "notes.txt", ".hidden.png"):
        (masks / name).touch()
    samples, notes = predicted_samples(str(images), masks, LABELS, LIMITS)
    assert [sample.name for sample in samples] == ["p0", "p2"]
    assert notes == ["1 of 3 images have no mask and are left out: p1"]
    (masks / "q.png").touch()
    with pytest.raises(PairingError, match=r"1 masks have no image: q.png; the mask of .*p0.png would be p0.png in"):
        predicted_samples(str(images), masks, LABELS, LIMITS)
    for mask in masks.iterdir():
        mask.unlink()
    with pytest.raises(PairingError, match="no image has a mask"):
        predicted_samples(str(images), masks, LABELS, LIMITS)
    with pytest.raises(PairingError, match="not a folder"):
        predicted_samples(str(images), tmp_path / "none", LABELS, LIMITS)


def test_one_mask_a_class_becomes_bit_fields_and_all_of_them_must_be_there(tmp_path):
    save_samples(tmp_path, [PICTURE])
    masks = tmp_path / "overlapping"
    masks.mkdir()
    leaf, stem = PICTURE == 1, PICTURE >= 1
    for part, inside in (("leaf", leaf), ("stem-root", stem)):
        Image.fromarray(inside * np.uint8(255)).save(masks / f"p0_{part}.png")
    (sample,), _ = predicted_samples(str(tmp_path / "images"), masks, OVERLAPPING, LIMITS)
    assert np.array_equal(OVERLAPPING.decode(read_mask(sample.mask), sample.mask), leaf + 2 * stem)
    Image.new("L", (3, 3)).save(masks / "p0_leaf.png")
    with pytest.raises(MaskError, match="differ in size"):
        read_mask(sample.mask)
    (masks / "p0_leaf.png").unlink()
    with pytest.raises(PairingError, match=r"has p0_stem-root.png, but not p0_leaf.png. Predict p0 again"):
        predicted_samples(str(tmp_path / "images"), masks, OVERLAPPING, LIMITS)


def test_slices_of_a_volume_are_paired_by_their_names_and_become_a_volume_again(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 3), dtype=np.int16), np.eye(4)), tmp_path / "images" / "v.nii.gz")
    ids = np.random.default_rng(0).integers(0, 3, (3, 5, 4)).astype(np.uint8)
    for i, mask in enumerate(ids):
        Image.fromarray(mask).save(tmp_path / "masks" / f"v_z{i:03}.png")
    settings = ConvertMasksSettings(
        masks=str(tmp_path / "masks"),
        images=str(tmp_path / "images"),
        to="nifti",
        output=str(tmp_path / "out"),
        classes=list(LABELS.classes),
    )
    assert convert_folder(settings) == []
    canonical = np.asarray(nibabel.load(tmp_path / "out" / "v.nii.gz").dataobj)
    assert np.array_equal(canonical[::-1, ::-1].transpose(2, 1, 0), ids)


def test_masks_of_rasters_are_rasters_whose_missing_data_count_as_ignored(tmp_path):
    profile = {"driver": "GTiff", "height": 7, "width": 7, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
    profile["transform"] = Affine(10, 0, 5e5, 0, -10, 5e6)
    mask = PICTURE.copy()
    mask[0] = 255
    for part, values in (("images", PICTURE * 80), ("masks", mask)):
        (tmp_path / part).mkdir()
        with rasterio.open(tmp_path / part / "r.tif", "w", **profile, nodata=255) as raster:
            raster.write(values[None])
    (sample,), _ = predicted_samples(str(tmp_path / "images"), tmp_path / "masks", LABELS, LIMITS)
    assert np.array_equal(LABELS.decode(read_mask(sample.mask), sample.mask), mask)


def test_predict_saves_its_masks_in_other_formats_too(capsys, tmp_path, workspace, finished):
    images = workspace / "data" / "images"
    command = ["predict", finished.path, images, "--output", tmp_path / "masks", "--save_as", "coco,yolo"]
    outcome = convlora(capsys, *command)
    assert outcome.code == 0, outcome.errors
    assert f"coco: annotations.json in {tmp_path / 'masks-coco'}\n" in outcome.out
    coco = COCO(str(tmp_path / "masks-coco" / "annotations.json"))
    assert len(coco.imgs) == len(list((tmp_path / "masks-yolo" / "labels").iterdir())) == 9
    (tmp_path / "masks-coco" / "annotations.json").write_text("old")
    assert_one_line(convlora(capsys, *command), 6, "is not empty")
    for mask in (tmp_path / "masks").iterdir():
        mask.unlink()
    assert_one_line(convlora(capsys, *command), 6, "masks-coco is not empty")
    assert not any((tmp_path / "masks").iterdir()), "it predicted before it looked"
    outcome = convlora(capsys, *command, "--skip_existing")
    assert outcome.code == 0 and f"note: {tmp_path / 'masks-coco'} is there already, and is left" in outcome.out
    assert (tmp_path / "masks-coco" / "annotations.json").read_text() == "old", "it may have been corrected by hand"
    assert_one_line(convlora(capsys, *command[:-1], "coco,word"), 2, "save_as=word must be some of coco")
