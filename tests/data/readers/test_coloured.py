import io
import time

import numpy as np
import pytest
from PIL import Image

from convlora.data.findings.checking import check_data
from convlora.data.pixels.masks import read_mask
from convlora.data.readers.finding import find_data
from convlora.data.settings import DataSettings
from convlora.errors import ConvloraError, MaskError, SettingsError
from convlora.training.split import Split
from tests.data.files import noise, save

COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 128, 255), (255, 255, 255)], dtype=np.uint8)
TABLE = "background 0 0 0\ncar 255 0 0\nsky 0 128 255\nignore 255 255 255\n"
TRUTH = np.kron(np.random.default_rng(0).integers(0, 4, (5, 8)), np.ones((16, 16), dtype=int))


def write(folder, masks, **options):
    for i, (name, mask) in enumerate(masks.items()):
        save(folder / f"images/{name}", noise(*np.asarray(mask).shape[:2], seed=i))
        save(folder / f"masks/{name}", mask, **options)
    (folder / "colours.txt").write_text(TABLE)
    return folder


def settings(folder, **more):
    given = {"mask_format": "colours", "colours": str(folder / "colours.txt"), "val_fraction": 0, "test_fraction": 0}
    return DataSettings(images=str(folder / "images"), masks=str(folder / "masks"), **given | more)


def class_ids(folder, **more):
    checked = check_data(settings(folder, **more))
    return [checked.labels.decode(read_mask(s.mask), s.mask) for s in checked.splits["train"]], checked


def expected():
    return np.where(TRUTH == 3, 255, TRUTH)


@pytest.mark.parametrize("form", ["RGB", "RGBA", "P", "tif"])
def test_colours_become_the_classes_of_the_table(tmp_path, form):
    mask = COLOURS[TRUTH]
    if form == "RGBA":
        mask = np.concatenate([mask, np.full((*TRUTH.shape, 1), 255, dtype=np.uint8)], axis=-1)
    picture = Image.fromarray(mask)
    if form == "P":  # indices in another order than the table
        picture = Image.fromarray((3 - TRUTH).astype(np.uint8), mode="P")
        picture.putpalette(COLOURS[::-1].tobytes())
    name = "a.tif" if form == "tif" else "a.png"
    write(tmp_path, {name: np.asarray(mask)})
    picture.save(tmp_path / "masks" / name)
    ids, checked = class_ids(tmp_path)
    np.testing.assert_array_equal(ids[0], expected())
    assert checked.labels.classes == ("background", "car", "sky")
    assert checked.labels.colours == ((0, 0, 0), (255, 0, 0), (0, 128, 255))


def test_grey_masks_are_colours_too(tmp_path):
    write(tmp_path, {"a.png": np.where(TRUTH > 1, 255, 0).astype(np.uint8)})
    ids, _ = class_ids(tmp_path)
    assert np.unique(ids[0]).tolist() == [0, 255]


def test_transparent_pixels_need_a_name_and_half_transparent_ones_are_refused(tmp_path):
    alpha = np.where(TRUTH == 0, 0, 255).astype(np.uint8)[..., None]
    write(tmp_path, {"a.png": np.concatenate([COLOURS[TRUTH], alpha], axis=-1)})
    with pytest.raises(MaskError, match=rf"transparent \({np.count_nonzero(TRUTH == 0)} pixels\)"):
        check_data(settings(tmp_path))
    (tmp_path / "colours.txt").write_text(TABLE.replace("background 0 0 0", "background transparent"))
    ids, _ = class_ids(tmp_path)
    np.testing.assert_array_equal(ids[0], expected())
    write(tmp_path, {"a.png": np.concatenate([COLOURS[TRUTH], alpha // 2], axis=-1)})
    with pytest.raises(ConvloraError, match="pixels are half transparent, so their colour is not sure"):
        check_data(settings(tmp_path))


def test_unknown_colours_are_told_with_their_pixels_and_what_is_near(tmp_path):
    mask = COLOURS[TRUTH]
    mask[:2, :3], mask[5, 5] = (250, 9, 0), (1, 2, 3)
    write(tmp_path, {"a.png": mask, "b.png": COLOURS[TRUTH]})
    message = (
        r"a\.png and others of 2 masks looked at: 7 of 20480 pixels have colours that are not in \S+colours\.txt: "
        r"\(250, 9, 0\) \(6 pixels, 9 off car \(255, 0, 0\)\); \(1, 2, 3\) \(1 pixels, 3 off background \(0, 0, 0\)\)"
        r"\. Add them to the table"
    )
    with pytest.raises(MaskError, match=message):
        check_data(settings(tmp_path))


def test_an_unknown_colour_in_a_mask_that_was_not_looked_at_is_found_by_the_check(tmp_path):
    masks = {f"m{i:02d}.png": COLOURS[TRUTH] for i in range(33)}
    masks["m01.png"] = np.where((TRUTH == 1)[..., None], np.uint8((7, 7, 7)), COLOURS[TRUTH])
    write(tmp_path, masks)
    assert len(find_data(settings(tmp_path)).samples) == 33
    with pytest.raises(ConvloraError, match=r"m01\.png: \d+ of 10240 pixels have .*\(7, 7, 7\)"):
        check_data(settings(tmp_path))


def test_jpeg_masks_are_refused_or_snapped_within_a_tolerance_that_is_told(tmp_path):
    write(tmp_path, {"a.jpg": COLOURS[TRUTH]}, quality=90)
    with pytest.raises(MaskError, match=r"smeared by lossy compression.*--colour_tolerance"):
        check_data(settings(tmp_path))
    ids, checked = class_ids(tmp_path, colour_tolerance=63)
    sure = ids[0] != 255
    np.testing.assert_array_equal(ids[0][sure], expected()[sure])  # blocks of 16 pixels end where those of JPEG end
    note = next(note for note in checked.notes if "colour_tolerance" in note)
    assert "colours up to 63 levels off" in note and "further off and ignored" in note


def test_mixed_colours_beyond_the_tolerance_are_ignored_but_an_unlisted_class_is_not(tmp_path):
    mask = COLOURS[TRUTH]
    mask[0] = [(100 + i % 60, 60, 100) for i in range(128)]  # as of a smeared border: none of them fills 2 %
    write(tmp_path, {"a.png": mask})
    ids, checked = class_ids(tmp_path, colour_tolerance=20)
    assert (ids[0][0] == 255).all() and np.array_equal(ids[0][1:], expected()[1:])
    assert f"{100 * 128 / mask[..., 0].size:.2g} % are further off" in " ".join(checked.notes)
    mask[0:4] = (100, 60, 100)
    write(tmp_path, {"a.png": mask})
    with pytest.raises(MaskError, match=r"512 of 10240 .*\(100, 60, 100\) \(512 pixels, 100 off"):
        check_data(settings(tmp_path, colour_tolerance=20))


def test_a_tolerance_within_which_two_classes_are_alike_is_refused(tmp_path):
    write(tmp_path, {"a.png": COLOURS[TRUTH]})
    message = r"colour_tolerance=64 is too much: .* are 128 levels apart, so 63 can be"
    (tmp_path / "colours.txt").write_text("background 0 0 0\ncar 128 0 0\n")
    with pytest.raises(SettingsError, match=message):
        find_data(settings(tmp_path, colour_tolerance=64))


def test_sixteen_bits_are_no_colours(tmp_path):
    write(tmp_path, {"a.png": (TRUTH * 300).astype(np.uint16)})
    with pytest.raises(ConvloraError, match="16-bit values are no colours"):
        check_data(settings(tmp_path))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"colours": None}, "mask_format=colours needs --colours FILE"),
        ({"mask_format": "auto"}, "colours and colour_tolerance are for --mask_format colours"),
        ({"colour_tolerance": -1}, "colour_tolerance=-1 must be between 0 and 127"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(tmp_path, more, message):
    write(tmp_path, {"a.png": np.zeros((4, 4), dtype=np.uint8)})
    with pytest.raises(SettingsError, match=message):
        check_data(settings(tmp_path, **more))


def test_a_split_of_coloured_masks_is_found_again(tmp_path, monkeypatch):
    write(tmp_path, {f"{c}.png": COLOURS[TRUTH] for c in "abc"})
    monkeypatch.chdir(tmp_path)
    relative = DataSettings(images="images", masks="masks", mask_format="colours", colours="colours.txt")
    checked = check_data(relative)
    written = Split(checked.splits, checked.labels, relative.data_part()).as_json()
    monkeypatch.chdir("/")
    again = Split.from_json(written)
    names = {split: [sample.name for sample in part] for split, part in checked.splits.items()}
    assert {split: [sample.name for sample in part] for split, part in again.samples.items()} == names
    assert again.labels == checked.labels
    for part in again.samples.values():
        for sample in part:
            np.testing.assert_array_equal(again.labels.decode(read_mask(sample.mask), sample.mask), expected())


def test_a_mask_of_half_a_million_colours_is_refused_in_a_second(tmp_path):
    values = np.arange(700 * 700, dtype=np.uint32) * 31 % 2**24
    mask = np.stack([values >> 16, values >> 8 & 255, values & 255], axis=-1).astype(np.uint8).reshape(700, 700, 3)
    write(tmp_path, {"a.png": mask})
    start = time.perf_counter()
    with pytest.raises(MaskError, match=r"and \d{6} more"):
        check_data(settings(tmp_path))
    assert time.perf_counter() - start < 3


def test_damaged_masks_give_errors_only(tmp_path):
    write(tmp_path, {"a.png": COLOURS[TRUTH]})
    stream = io.BytesIO()
    Image.fromarray(COLOURS[TRUTH]).save(stream, "PNG")
    whole, rng = stream.getvalue(), np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(0, 256)
        (tmp_path / "masks/a.png").write_bytes(data[: rng.integers(1, len(data) + 1)])
        try:
            check_data(settings(tmp_path))
        except ConvloraError as error:
            assert "\n" not in str(error)
