import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convlora.errors import ConvloraError, DataError, MaskError, PairingError, SettingsError
from tests.data.readers.drawing import found, masks_of, write_image

HEIGHT, WIDTH = 20, 30
HEADER = "ImageId,ClassId,EncodedPixels\n"


def encoded(mask):
    """Starts and lengths, pixel by pixel."""
    pairs, run = [], 0
    flat = [mask[y, x] for x in range(mask.shape[1]) for y in range(mask.shape[0])]
    for place, inside in enumerate([*flat, False], 1):
        if inside:
            run += 1
        elif run:
            pairs += [place - run, run]
            run = 0
    return " ".join(map(str, pairs))


def data_set(root, text, names=("a.jpg", "b.jpg"), folder="train_images"):
    for name in names:
        write_image(root / folder / name, HEIGHT, WIDTH)
    (root / "train.csv").write_text(text)
    return root


def random_mask(seed=0):
    return np.random.default_rng(seed).integers(0, 3, (HEIGHT, WIDTH))


def test_rows_are_the_classes_of_an_image_and_runs_go_down_its_columns(tmp_path):
    mask = random_mask()
    rows = "".join(f"a.jpg,{number},{encoded(mask == number)}\n" for number in (1, 2))
    data_set(tmp_path, HEADER + rows + "b.jpg,1,\nb.jpg,2,nan\n")
    (tmp_path / "sample_submission.csv").write_text("ImageId,EncodedPixels\na.jpg,1 1\n")
    data = found(tmp_path)
    assert data.notes[0].startswith("read as run-lengths: ") and not data.named
    assert data.labels.classes == ("background", "class_1", "class_2")
    masks = masks_of(data)
    np.testing.assert_array_equal(masks["a"], mask)
    assert not masks["b"].any() and "1 of 2 images without runs are background only: b" in data.notes
    assert found(tmp_path, classes=["background", "x", "y"]).labels.classes == ("background", "x", "y")
    with pytest.raises(SettingsError, match=r"classes=background,x are 2 names.*has 2 classes: 1, 2"):
        found(tmp_path, classes=["background", "x"])


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("id,rle\na,1 2\na,41 3\n", ("foreground",)),
        ("img,rle_mask\na.jpg,1 2 41 3\n", ("foreground",)),
        ("Image_Label,EncodedPixels\na.jpg_Fish,1 2 41 3\na.jpg_Sugar,\n", ("Fish", "Sugar")),
        ("ImageId_ClassId,EncodedPixels\na.jpg_4,1 2 41 3\n", ("class_4",)),
        ("id,class,rle\na,tree,1 2 41 3\n", ("tree",)),
    ],
)
def test_columns_are_called_in_several_ways_and_suffixes_may_be_left_out(tmp_path, text, classes):
    data = found(data_set(tmp_path, text, ["a.jpg"]) / "train_images", tmp_path / "train.csv")
    assert data.labels.classes == ("background", *classes)
    expected = np.zeros((HEIGHT, WIDTH))
    expected[:2, 0] = expected[:3, 2] = 1  # a column has 20 pixels
    np.testing.assert_array_equal(masks_of(data)["a"], expected)


def test_long_rows_are_read_and_the_limit_of_others_stays(tmp_path):
    import csv

    before = csv.field_size_limit()
    rows = "id,rle\na,1 2" + " " * 200_000 + "\n"
    assert masks_of(found(data_set(tmp_path, rows, ["a.jpg"])))["a"].sum() == 2
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ("a.jpg,1,0 5", MaskError, r"row 2 .'a\.jpg'. are not pairs of a start and a length between 1 and 600"),
        ("a.jpg,1,1 5 9", MaskError, "are not pairs"),
        ("a.jpg,1,1 601", MaskError, "are not pairs"),
        ("a.jpg,1,-5 2", MaskError, "are not whole numbers"),
        ("a.jpg,1,599 3", MaskError, "end beyond the image"),
        ("a.jpg,1,1 5 3 2", MaskError, "overlap"),
        ("a.jpg,1,9 2 1 2", MaskError, "ascending order"),
        ("a.jpg,1,1 x", MaskError, "are not whole numbers, but '1 x'"),
        ("a.jpg,1,1 1.5", MaskError, "are not whole numbers"),
        ("a.jpg,1," + "9" * 5000 + " 1", MaskError, "are not pairs"),
        ("../../etc/a.png,1,1 5", PairingError, r"1 of 1 images are not in .*: \.\./\.\./etc/a\.png"),
        ("a.jpg,1,1 5\n./a.jpg,1,1 5", PairingError, "1 images are there more than once"),
        ("a.jpg,1", DataError, "row 2 has 2 fields"),
        (",1,1 5", DataError, "row 2 does not say its image"),
        ("a.jpg,,1 5", DataError, "row 2 does not say its image, or its class"),
        ("a.jpg,1,", MaskError, "none of the 1 images has runs"),
        ("", DataError, "has no rows"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, rows, error, message):
    with pytest.raises(error, match=message) as raised:
        found(data_set(tmp_path, f"{HEADER}{rows}\n"))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 1000


def test_several_tables_or_none_are_for_the_user_to_settle(tmp_path):
    data_set(tmp_path, HEADER + "a.jpg,1,1 5\n")
    (tmp_path / "other.csv").write_text(HEADER + "a.jpg,1,1 5\n")
    with pytest.raises(SettingsError, match=r"several tables of run lengths .*Name one with --masks"):
        found(tmp_path)
    assert len(found(tmp_path, tmp_path / "other.csv").samples) == 1
    with pytest.raises(SettingsError, match="no table of run lengths"):
        found(tmp_path / "train_images", format="run-lengths")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text('0123456789 -.,ab\n"\x00é', max_size=60))
def test_any_text_is_read_or_refused_in_one_line(tmp_path, text):
    data_set(tmp_path, HEADER + "a.jpg,1,1 5\n" + text)
    try:
        masks_of(found(tmp_path))
    except ConvloraError as error:
        assert "\n" not in str(error)
