import numpy as np
import pytest
from PIL import Image

from convlora.data.findings.checking import check_data
from convlora.data.pixels.masks import read_mask
from convlora.data.readers.voc_classes import CLASSES, colour_of
from convlora.data.settings import DataSettings
from convlora.errors import ConvloraError, DataError, PairingError, SettingsError
from tests.data.files import save
from tests.data.readers.drawing import found, write_image

TRUTH = np.kron(np.array([[0, 1, 15], [20, 255, 15]], dtype=np.uint8), np.ones((8, 10), dtype=np.uint8))
PALETTE = [level for class_id in range(256) for level in colour_of(class_id)]
NAMES = ("2007_000032", "2007_000033", "2008_000129")


def palette_png(path, ids=TRUTH):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(ids, mode="P")
    picture.putpalette(PALETTE)
    picture.save(path)


def write(root, names=NAMES, lists=None, draw=palette_png):
    for i, name in enumerate(names):
        write_image(root / f"JPEGImages/{name}.jpg", *TRUTH.shape, seed=i)
        draw(root / f"SegmentationClass/{name}.png")
    for name, lines in (lists or {}).items():
        path = root / f"ImageSets/Segmentation/{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
    return root


def in_colour(path):
    save(path, np.array(PALETTE, dtype=np.uint8).reshape(-1, 3)[TRUTH])


def test_the_palette_is_vocs_own():
    # the first entries as the development kit documents them, and the border
    assert [colour_of(i) for i in (0, 1, 2, 3, 4, 8, 15, 20)] == [
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (0, 0, 128),
        (64, 0, 0),
        (192, 128, 128),
        (0, 64, 128),
    ]
    assert colour_of(255) == (224, 224, 192)


def test_vocs_own_files_are_read_by_index_with_its_names_and_lists(tmp_path):
    lists = {"train": NAMES[:2], "val": NAMES[2:], "trainval": NAMES, "test": ["2008_000001"]}
    data = found(write(tmp_path, lists=lists))
    assert [(s.name, s.split) for s in data.samples] == [(NAMES[0], "train"), (NAMES[1], "train"), (NAMES[2], "val")]
    assert data.labels.classes == CLASSES and data.labels.colours[15] == (192, 128, 128)
    np.testing.assert_array_equal(data.labels.decode(read_mask(data.samples[0].mask), data.samples[0].mask), TRUTH)
    assert "left out the list test: none of its 1 images has a mask" in data.notes


def test_masks_in_vocs_colours_are_the_same(tmp_path):
    data = found(write(tmp_path, draw=in_colour))
    mask = data.samples[0].mask
    np.testing.assert_array_equal(data.labels.decode(read_mask(mask), mask), TRUTH)


@pytest.mark.parametrize("draw", [in_colour, palette_png])
def test_a_labelmap_of_cvat_names_and_decodes_the_masks(tmp_path, draw):
    root = write(tmp_path, ["a", "b"], draw=draw)
    rows = [("person", 15), ("background", 0), ("plane", 1), ("screen", 20), ("ignore", 255)]
    text = "".join(f"{name}:{','.join(map(str, colour_of(i)))}::\n" for name, i in rows)
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + text)
    data = found(root)
    assert data.labels.classes == ("background", "person", "plane", "screen")
    mask = data.samples[0].mask
    expected = np.select([TRUTH == 15, TRUTH == 1, TRUTH == 20, TRUTH == 255], [1, 2, 3, 255], 0)
    np.testing.assert_array_equal(data.labels.decode(read_mask(mask), mask), expected)


def test_indices_are_places_in_the_labelmap_if_there_are_no_colours(tmp_path):
    root = write(tmp_path, ["a"], draw=lambda path: save(path, np.where(TRUTH > 1, 2, TRUTH)))
    (root / "labelmap.txt").write_text("sky:1,1,1::\nbackground:0,0,0::\nsea:2,2,2::\n")
    data = found(root)
    assert data.labels.classes == ("background", "sky", "sea")
    assert dict(data.labels.table) == {0: 1, 1: 0, 2: 2, 255: 255}


def test_masks_with_other_names_get_no_names_of_voc(tmp_path):
    root = write(tmp_path, ["a", "b", "c", "d"], draw=lambda path: palette_png(path, TRUTH % 2))
    data = found(root)
    assert data.labels is None and "give them with --classes" in " ".join(data.notes)
    checked = check_data(DataSettings(images=str(root), classes=["background", "crack"]))
    assert checked.labels.classes == ("background", "crack")


@pytest.mark.parametrize("before", ["", "__ignore__\n"])  # which its lists of labels begin with, as id -1
def test_labelmes_tool_keeps_names_in_a_file_and_masks_in_another_folder(tmp_path, before):
    root = write(tmp_path, ["a"])
    (root / "SegmentationClass").rename(root / "SegmentationClassPNG")
    (root / "SegmentationClass").mkdir()
    (root / "SegmentationClass/a.npy").touch()
    (root / "class_names.txt").write_text(f"{before}_background_\n" + "\n".join(f"thing {i}" for i in range(1, 21)))
    data = found(root)
    assert data.labels.classes == ("background", *(f"thing {i}" for i in range(1, 21)))


def test_the_lists_of_cvat_have_folders_and_other_names(tmp_path):
    lists = {"Train": ['"x/a b"'], "Validation": ["x/c"]}
    data = found(write(tmp_path, ["x/a b", "x/c", "x/d"], lists=lists))
    assert [(s.name, s.split) for s in data.samples] == [("x/a b", "train"), ("x/c", "val")]
    assert "left out 1 masks that no list names: x/d" in data.notes


def test_images_without_masks_are_told(tmp_path):
    root = write(tmp_path)
    write_image(root / "JPEGImages/2012_000001.jpg")
    assert "left out 1 images without a mask: 2012_000001" in found(root).notes


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": ["2007_000032", "2099_000001"]}, r"train\.txt: 1 of 2 names have no mask: 2099_000001"),
        ({"train": NAMES[:2], "val": NAMES[1:]}, "2007_000033 is in train and in val; take it out of one"),
        ({"train": [], "val": ["../../etc/passwd"]}, "1 of 1 names have no mask"),
    ],
)
def test_lists_that_cannot_be_are_refused(tmp_path, lists, message):
    with pytest.raises(PairingError, match=message):
        found(write(tmp_path, lists=lists))


def test_missing_images_equal_names_and_too_many_settings_are_refused(tmp_path):
    root = write(tmp_path)
    with pytest.raises(SettingsError, match="format voc finds them"):
        found(root, root / "SegmentationClass", format="voc")
    (root / f"JPEGImages/{NAMES[0]}.jpg").rename(root / f"JPEGImages/{NAMES[1]}.png")
    with pytest.raises(PairingError, match="1 files share the name of another"):
        found(root)
    (root / f"JPEGImages/{NAMES[1]}.png").unlink()
    with pytest.raises(PairingError, match="1 of 3 images are not in JPEGImages: 2007_000032"):
        found(root)
    with pytest.raises(PairingError, match="JPEGImages is not there"):
        found(root / "ImageSets", format="voc")


def test_damaged_lists_and_labelmaps_give_errors_only(tmp_path):
    rng = np.random.default_rng(0)
    root = write(tmp_path, lists={"train": NAMES})
    for file in (root / "ImageSets/Segmentation/train.txt", root / "labelmap.txt", root / "class_names.txt"):
        for length in range(0, 60, 3):
            file.write_bytes(rng.bytes(length))
            try:
                found(root)
            except ConvloraError as error:
                assert "\n" not in str(error) and isinstance(error, DataError | SettingsError)
        file.unlink()
