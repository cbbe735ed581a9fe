import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from convlora.data.findings.checking import check_data
from convlora.data.labels.format import NO_DATA, LabelFormat
from convlora.data.pixels.images import read_image
from convlora.data.pixels.masks import read_mask
from convlora.data.readers.finding import find_data
from convlora.data.readers.pairing import find_images, find_samples
from convlora.data.scientific.expanding import Reading
from convlora.data.scientific.geometry import geometry_of
from convlora.data.settings import DataSettings
from convlora.errors import ImageError, MaskError, PairingError
from convlora.training.split import Split
from tests.data.files import save
from tests.data.scientific.makers import radiological, ramp, save_dicom, save_geotiff, save_nifti, save_series, through
from tests.data.scientific.test_dicom_seg import save_seg
from tests.data.scientific.test_vectors import box, geojson

ALL_TRAIN = {"val_fraction": 0.0, "test_fraction": 0.0}


def data(folder, **settings):
    return find_data(DataSettings(images=str(folder / "images"), masks=str(folder / "masks"), **settings))


def names(samples):
    return [sample.name for sample in samples]


def volumes(folder, count=3, slices=3, ct=False):
    for i in range(count):
        values = ramp((6, 5, slices), np.int16, i)
        values = values % 1500 - 1000 if ct else np.abs(values % 1500)
        save_nifti(folder / "images" / f"p{i}.nii.gz", values.astype(np.int16), "LPS")
        save_nifti(folder / "masks" / f"p{i}.nii.gz", ramp((6, 5, slices), np.uint8, i) % 3, "RAS")
    return folder


def test_volumes_become_slices_with_their_masks_in_one_group_each(tmp_path):
    found = data(volumes(tmp_path))
    assert names(found.samples) == [f"p{i}_z{z:03d}" for i in range(3) for z in range(3)]
    assert [s.group for s in found.samples] == [f"p{i}" for i in range(3) for _ in range(3)]
    for i in range(3):
        for z in range(3):
            sample = found.samples[3 * i + z]
            np.testing.assert_array_equal(read_mask(sample.mask), radiological(ramp((6, 5, 3), np.uint8, i) % 3)[z])
    assert str(found.samples[4].image).endswith("images/p1.nii.gz, slice 1")
    assert geometry_of(found.samples[4].image).index == 1


@pytest.mark.parametrize("settings", [{}, {"group": r"^(.*)_z\d+$"}])
def test_slices_of_a_volume_stay_in_one_split(tmp_path, settings):
    volumes(tmp_path, count=6, slices=4)
    checked = check_data(DataSettings(images=str(tmp_path / "images"), masks=str(tmp_path / "masks"), **settings))
    of = {split: {s.name.split("_z")[0] for s in members} for split, members in checked.splits.items()}
    assert all(of.values()) and sum(map(len, of.values())) == 6
    assert checked.labels.num_classes == 3


def test_ct_of_a_folder_is_read_alike_and_the_note_says_how(tmp_path):
    found = data(volumes(tmp_path, ct=True))
    assert {s.image.intensity for s in found.samples} == {"soft-tissue"} and found.intensity == "soft-tissue"
    assert found.notes == ["values of 3 files: soft-tissue, black at -160 and white at 240 (--intensity soft-tissue)"]
    want = through(radiological((ramp((6, 5, 3), np.int16, 1) % 1500 - 1000).astype(np.int16))[2], -160, 240)
    np.testing.assert_array_equal(read_image(found.samples[5].image)[..., 0], want)
    lung = data(tmp_path, intensity="lung")
    assert "lung, black at -1350 and white at 150" in lung.notes[0] and lung.intensity == "lung"
    mr = data(volumes(tmp_path / "mr"))
    assert mr.intensity == "percentile" and "0.5 and white at the 99.5 percentile of each" in mr.notes[0]


def test_a_run_finds_its_slices_again_and_reads_them_as_it_did(tmp_path):
    volumes(tmp_path, ct=True)
    settings = DataSettings(images=str(tmp_path / "images"), masks=str(tmp_path / "masks"))
    checked = check_data(settings)
    import dataclasses

    split = Split(checked.splits, checked.labels, dataclasses.replace(settings, intensity=checked.intensity))
    again = Split.from_json(json.loads(json.dumps(split.as_json())))
    for part, samples in split.samples.items():
        assert [(s.name, s.image, s.mask) for s in samples] == [(s.name, s.image, s.mask) for s in again.samples[part]]


def test_images_for_prediction_expand_likewise(tmp_path):
    volumes(tmp_path, count=1)
    tifffile.imwrite(tmp_path / "images/stack.tif", ramp((2, 4, 5), np.uint16), photometric="minisblack")
    save_series(tmp_path / "images/case.1", ramp((4, 6, 7), np.int16), suffix="")
    save_geotiff(tmp_path / "images/town.tif", ramp((3, 6, 7), np.uint8))
    save(tmp_path / "images/photo.png", ramp((4, 4, 3), np.uint8))
    found = find_images(str(tmp_path / "images"))
    want = [f"case.1_z{z:03d}" for z in range(4)] + [f"p0_z{z:03d}" for z in range(3)]
    assert names(found) == sorted([*want, "photo", "stack_p000", "stack_p001", "town"])
    by_name = {sample.name: sample for sample in found}
    assert by_name["photo"].group is by_name["town"].group is None and by_name["stack_p001"].group == "stack"
    lung = find_images(str(tmp_path / "images"), how=Reading(intensity="lung"))
    picture = next(s for s in lung if s.name == "case.1_z002")
    np.testing.assert_array_equal(read_image(picture.image)[..., 0], through(ramp((4, 6, 7), np.int16)[2], -1350, 150))
    one = find_images(str(tmp_path / "images/p0.nii.gz"))
    assert names(one) == [f"p0_z{z:03d}" for z in range(3)]
    assert names(find_images(str(tmp_path / "images/case.1"))) == want[:4]


def test_archives_of_series_are_searched_below_their_root(tmp_path):
    for patient in ("p1", "p2"):
        save_series(tmp_path / patient / "study" / f"{patient}-ct", ramp((2, 4, 5), np.int16), series=f"1.{patient[1]}")
    assert names(find_images(str(tmp_path))) == [f"p{i}-ct_z{z:03d}" for i in (1, 2) for z in range(2)]


def test_single_dicom_pictures_pair_by_stem_like_any_file(tmp_path):
    for i in range(2):
        settings = {"series": f"1.{i}", "position": None, "Modality": "DX"}
        save_dicom(tmp_path / f"images/x{i}.dcm", ramp((6, 8), np.uint16, i), **settings)
        save(tmp_path / f"masks/x{i}.png", ramp((6, 8), np.uint8, i) % 2)
    found = data(tmp_path)
    assert names(found.samples) == ["x0", "x1"] and isinstance(found.samples[0].mask, type(tmp_path))


def test_segmentations_find_their_series_by_reference_and_name_the_classes(tmp_path):
    for case in ("a", "b"):
        save_series(tmp_path / "images" / case, ramp((5, 8, 9), np.int16), series=f"1.{ord(case)}")
    ids = ramp((5, 8, 9), np.uint8) % 4
    save_seg(tmp_path / "masks/one.dcm", tmp_path / "images/b", ids)
    save_seg(tmp_path / "masks/two.dcm", tmp_path / "images/a", (ids == 1).astype(np.uint8), labels=("Spleen",))
    found = data(tmp_path)
    assert found.labels == LabelFormat(("background", "Liver", "Spleen", "Kidney"))
    assert names(found.samples) == [f"{case}_z{z:03d}" for case in "ab" for z in range(5)]
    got = read_mask(found.samples[8].mask)
    np.testing.assert_array_equal(got, np.array([0, 1, 3, 2])[ids[3]])
    assert found.samples[8].group == "b"
    checked = check_data(DataSettings(images=str(tmp_path / "images"), masks=str(tmp_path / "masks"), **ALL_TRAIN))
    assert checked.labels.classes == ("background", "Liver", "Spleen", "Kidney")
    (tmp_path / "masks/two.dcm").unlink()
    with pytest.raises(PairingError, match=r"1 series without a segmentation \(.*images/a\)"):
        data(tmp_path)


def test_stacks_pair_page_by_page_and_other_numbers_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    ids = ramp((4, 6, 7), np.uint8) % 3
    tifffile.imwrite(tmp_path / "images/a.tif", ramp((4, 6, 7), np.uint16), photometric="minisblack")
    tifffile.imwrite(tmp_path / "masks/a.tif", ids, photometric="minisblack")
    found = data(tmp_path)
    for i, sample in enumerate(found.samples):
        np.testing.assert_array_equal(read_mask(sample.mask), ids[i])
    tifffile.imwrite(tmp_path / "masks/a.tif", ids[:3], photometric="minisblack")
    with pytest.raises(PairingError, match=r"masks/a\.tif has 3 pages, but its image .*images/a\.tif has 4"):
        data(tmp_path)
    (tmp_path / "masks/a.tif").unlink()
    save(tmp_path / "masks/a.png", ids[0])
    with pytest.raises(PairingError, match=r"masks/a\.png is one mask, but its image .*a\.tif has 4 pages"):
        data(tmp_path)
    tifffile.imwrite(tmp_path / "masks/a.tif", ids, photometric="minisblack")
    (tmp_path / "masks/a.png").unlink()
    (tmp_path / "images/a.tif").unlink()
    save(tmp_path / "images/a.png", ramp((6, 7, 3), np.uint8))
    with pytest.raises(PairingError, match=r"a\.tif has 4 pages, but its image .*a\.png is one picture"):
        data(tmp_path)


def test_plain_tiff_is_read_as_ever(tmp_path):
    pixels = ramp((6, 7, 3), np.uint8)
    save(tmp_path / "images/a.tif", pixels)
    save(tmp_path / "masks/a.tif", ramp((6, 7), np.uint8) % 2)
    found = data(tmp_path)
    assert found.samples[0].image == tmp_path / "images/a.tif" and found.samples[0].mask == tmp_path / "masks/a.tif"
    assert names(found.samples) == ["a"] and found.notes == []


def without_data(folder, foreground):
    """A raster whose first rows hold no data, and a binary mask that marks a part of them, too."""
    bands = np.maximum(ramp((3, 8, 9), np.uint8), 1)
    bands[:, :3] = 0
    mask = np.zeros((1, 8, 9), dtype=np.uint8)
    mask[0, 2:6, 1:5] = foreground
    for name in "abc":
        save_geotiff(folder / f"images/{name}.tif", bands, nodata=0)
        save_geotiff(folder / f"masks/{name}.tif", mask)
    return folder


@pytest.mark.parametrize("foreground", [1, 255])
def test_pixels_without_data_are_ignored_and_not_taken_for_foreground(tmp_path, foreground):
    without_data(tmp_path, foreground)
    settings = DataSettings(images=str(tmp_path / "images"), masks=str(tmp_path / "masks"), **ALL_TRAIN)
    checked = check_data(settings)
    assert checked.labels.classes == ("background", "foreground")
    assert checked.ignored_pixels == 3 * 27 and checked.class_pixels == (3 * (72 - 27 - 12), 3 * 12)
    assert "81 pixels of 3 images hold no data, and are ignored" in checked.notes
    sample = checked.splits["train"][0]
    values = read_mask(sample.mask)
    decoded = checked.labels.decode(values, sample.mask)
    assert (values[:3] == NO_DATA).all() and (decoded[:3] == 255).all()
    assert set(np.unique(decoded[3:])) == {0, 1} and decoded[3:].sum() == 12


def test_outlines_give_the_classes_of_all_files(tmp_path):
    (tmp_path / "masks").mkdir()
    for name, ring, kind in (("a", box(1, 2, 5, 6), "tree"), ("b", box(0, 0, 3, 3), "barn")):
        save_geotiff(tmp_path / f"images/{name}.tif", ramp((3, 8, 9), np.uint8))
        geojson(tmp_path / f"masks/{name}.geojson", [(ring, {"class": kind})])
    found = data(tmp_path)
    assert found.labels.classes == ("background", "barn", "tree")
    assert [int(read_mask(s.mask).sum()) for s in found.samples] == [2 * 16, 9]
    assert "classes of outlines: of attribute class (--attribute)" in found.notes
    one = find_data(DataSettings(images=str(tmp_path / "images"), masks=str(tmp_path / "masks/a.geojson")))
    assert [int(read_mask(s.mask).sum()) for s in one.samples] == [16, 16]
    shutil.rmtree(tmp_path / "images")
    save(tmp_path / "images/a.png", ramp((8, 9, 3), np.uint8))
    save(tmp_path / "images/b.png", ramp((8, 9, 3), np.uint8))
    with pytest.raises(MaskError, match=r"a\.geojson holds outlines on earth, but .*a\.png has no place there"):
        data(tmp_path)


def test_a_listing_may_name_volumes_and_gives_them_its_splits(tmp_path):
    volumes(tmp_path, count=2)
    rows = "image,mask,split\n" + "".join(
        f"images/p{i}.nii.gz,masks/p{i}.nii.gz,{split}\n" for i, split in enumerate(("train", "test"))
    )
    (tmp_path / "list.csv").write_text(rows)
    found = find_data(DataSettings(images=str(tmp_path / "list.csv")))
    assert [(s.name, s.split) for s in found.samples] == [
        (f"p{i}_z{z:03d}", split) for i, split in enumerate(("train", "test")) for z in range(3)
    ]


def test_names_stay_different(tmp_path):
    save_nifti(tmp_path / "a.nii.gz", ramp((4, 4, 1), np.int16))
    save(tmp_path / "a_z000.png", ramp((4, 4), np.uint8))
    with pytest.raises(PairingError, match="1 pictures would have the same name"):
        find_images(str(tmp_path))


def test_one_volume_and_its_mask_may_have_any_names(tmp_path):
    image, mask = ramp((6, 5, 3), np.int16), ramp((6, 5, 3), np.uint8) % 2
    save_nifti(tmp_path / "scan.nii.gz", image)
    save_nifti(tmp_path / "truth.nii", mask)
    samples = find_data(DataSettings(images=str(tmp_path / "scan.nii.gz"), masks=str(tmp_path / "truth.nii"))).samples
    assert names(samples) == ["scan_z000", "scan_z001", "scan_z002"]


def test_channels_are_read_raw_from_stacks_and_left_to_the_reader_of_files_otherwise(tmp_path):
    values = ramp((3, 5, 6, 7), np.uint16)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    tifffile.imwrite(tmp_path / "images/a.ome.tif", values, metadata={"axes": "TCYX"}, photometric="minisblack")
    tifffile.imwrite(tmp_path / "masks/a.tif", ramp((3, 6, 7), np.uint8) % 2, photometric="minisblack")
    found = data(tmp_path, channels=5)
    assert names(found.samples) == ["a_p000", "a_p001", "a_p002"]
    from convlora.data.pixels.channels import read_channels

    got = read_channels(found.samples[2].image, channels=5)
    np.testing.assert_array_equal(got, np.moveaxis(values[2], 0, -1))
    with pytest.raises(ImageError, match="5 channels"):
        read_image(found.samples[2].image)
    tifffile.imwrite(tmp_path / "images/a.ome.tif", values[0], metadata={"axes": "CYX"}, photometric="minisblack")
    tifffile.imwrite(tmp_path / "masks/a.tif", ramp((6, 7), np.uint8) % 2, photometric="minisblack")
    (sample,) = data(tmp_path, channels=5).samples
    assert sample.image == tmp_path / "images/a.ome.tif"
    np.testing.assert_array_equal(read_channels(sample.image, channels=5), np.moveaxis(values[0], 0, -1))


def test_find_samples_alone_still_gives_whole_files(tmp_path):
    volumes(tmp_path, count=1)
    (sample,) = find_samples(str(tmp_path / "images"), str(tmp_path / "masks"))
    assert (sample.name, sample.image.name, sample.mask.name) == ("p0", "p0.nii.gz", "p0.nii.gz")


def test_deep_tiff_masks_beside_pictures_are_read_with_all_their_bits(tmp_path):
    Image.fromarray(ramp((6, 7, 3), np.uint8)).save(save(tmp_path / "images/a.png", ramp((6, 7, 3), np.uint8)))
    (tmp_path / "masks").mkdir()
    ids = (ramp((6, 7), np.uint8) % 3).astype(np.uint32)
    tifffile.imwrite(tmp_path / "masks/a.tif", ids, photometric="minisblack")
    np.testing.assert_array_equal(read_mask(data(tmp_path).samples[0].mask), ids)
