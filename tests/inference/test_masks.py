import cv2
import numpy as np
import pytest
from PIL import Image

from convlora.data.labels.bits import pack
from convlora.data.pixels.masks import read_mask
from convlora.inference.masks import mask_pictures
from convlora.inference.output import class_parts, image_files
from convlora.inference.settings import PredictSettings

COLOURS = {0: (0, 0, 0), 1: (255, 0, 0), 2: (1, 2, 3)}


def settings(**values):
    return PredictSettings(run="r", images="i", output="o", **values)


@pytest.mark.parametrize("palette", [False, True])
def test_masks_hold_ids_for_numpy_and_our_reader_whatever_a_viewer_shows(tmp_path, palette):
    ids = np.uint8([[0, 1, 2], [2, 1, 0]])
    (picture,) = mask_pictures(ids, COLOURS, palette=palette)
    path = tmp_path / "a.png"
    picture.save(path)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), ids)
    np.testing.assert_array_equal(read_mask(path), ids)
    shown = np.asarray(Image.open(path).convert("RGB"))
    want = np.array(list(COLOURS.values()))[ids] if palette else np.repeat(ids[..., None], 3, -1)
    np.testing.assert_array_equal(shown, want)


def test_the_palette_is_off_by_default_because_opencv_reads_its_colours(tmp_path):
    ids = np.uint8([[0, 1, 2]])
    for name, palette in (("grey", settings().palette), ("colour", True)):
        mask_pictures(ids, COLOURS, palette=palette)[0].save(tmp_path / f"{name}.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "grey.png"), cv2.IMREAD_UNCHANGED), ids)
    assert cv2.imread(str(tmp_path / "colour.png"), cv2.IMREAD_UNCHANGED).shape == (1, 3, 3)


@pytest.mark.parametrize("palette", [False, True])
def test_classes_that_overlap_have_a_mask_each(palette):
    channels = np.random.default_rng(0).random((2, 5, 6)) < 0.5
    pictures = mask_pictures(pack(channels), COLOURS, multilabel=True, palette=palette)
    assert len(pictures) == 2
    for picture, channel in zip(pictures, channels, strict=True):
        np.testing.assert_array_equal(np.asarray(picture), channel * 255)
    assert not palette or pictures[0].convert("RGB").getcolors()[-1][1] in ((255, 0, 0), (0, 0, 0))


def test_files_of_classes_are_named_by_class_or_by_number_where_the_name_would_not_do():
    id2label = dict(
        enumerate(["background", "leaf", "big stem/root", "a b", "a-b", "overlay", "probability_2", "É", "7", "/"])
    )
    assert class_parts(id2label) == ["leaf", "big-stem-root", "3", "4", "5", "6", "É", "8", "9"]
    names = image_files("x", settings(overlays=True, probabilities=True), 3, ["leaf", "stem"])
    assert [*names] == ["x_probability_1.png", "x_probability_2.png", "x_overlay.png", "x_leaf.png", "x_stem.png"]
    assert [*image_files("x", settings(), 3)] == ["x.png"]
