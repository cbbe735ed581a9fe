import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from convlora.errors import ConvloraError, DataError, MaskError, PairingError
from tests.data.readers.drawing import found, inside, masks_of, star, write_image

HEIGHT, WIDTH = 40, 50
SQUARE = "0.2 0.2 0.6 0.2 0.6 0.6 0.2 0.6"
NAMES = "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['car', 'tree']\n"


def data_set(root, labels, folder="train", yaml=NAMES, split_first=True):
    for i, text in enumerate(labels):
        image, label = (
            (f"{folder}/images", f"{folder}/labels") if split_first else (f"images/{folder}", f"labels/{folder}")
        )
        write_image(root / image / f"{i}.jpg", HEIGHT, WIDTH)
        if text is not None:
            (root / label).mkdir(parents=True, exist_ok=True)
            (root / label / f"{i}.txt").write_text(text)
    if yaml is not None:
        (root / "data.yaml").write_text(yaml)
    return root


def test_polygons_are_fractions_of_the_image(tmp_path):
    ring = (star(np.random.default_rng(0), HEIGHT, WIDTH) / (WIDTH, HEIGHT)).round(6)
    line = "1 " + " ".join(map(str, ring.ravel()))
    data = found(data_set(tmp_path, [line]))
    assert data.labels.classes == ("background", "car", "tree")
    np.testing.assert_array_equal(masks_of(data)["0"], 2 * inside([ring * (WIDTH, HEIGHT)], HEIGHT, WIDTH))


def test_a_part_that_is_joined_by_a_line_to_and_fro_stays_apart(tmp_path):
    joined = "0 0.1 0.1 0.3 0.1 0.3 0.3 0.7 0.7 0.9 0.7 0.9 0.9 0.7 0.9 0.7 0.7 0.3 0.3 0.1 0.3"
    mask = masks_of(found(data_set(tmp_path, [joined])))["0"]
    assert mask.sum() == 2 * 8 * 10 and mask[20, 25] == 0


@pytest.mark.parametrize("split_first", [True, False])
def test_folders_and_the_table_tell_the_splits(tmp_path, split_first):
    for folder in ("train", "valid"):
        data_set(tmp_path, [f"0 {SQUARE}"] * 2, folder, NAMES, split_first)
    data = found(tmp_path)
    start = (lambda split: f"{split}/images") if split_first else (lambda split: f"images/{split}")
    assert [(s.name, s.split) for s in data.samples] == [
        (f"{start(folder)}/{i}", split) for folder, split in (("train", "train"), ("valid", "val")) for i in (0, 1)
    ]
    assert [s.name for s in found(tmp_path / "data.yaml").samples] == [s.name for s in data.samples]


def test_the_table_may_name_folders_or_lists_of_its_own(tmp_path):
    yaml = "path: /somewhere/else\ntrain: images/one\nval: [images/two]\ntest: test.txt\nnames: {0: car, 1: tree}\n"
    for folder in ("one", "two", "three"):
        data_set(tmp_path, [f"0 {SQUARE}"], folder, yaml, split_first=False)
    (tmp_path / "test.txt").write_text("./images/three/0.jpg\n")
    assert {s.name: s.split for s in found(tmp_path).samples} == {
        "images/one/0": "train", "images/two/0": "val", "images/three/0": "test",
    }  # fmt: skip


def test_folders_given_one_by_one(tmp_path):
    data_set(tmp_path, [f"0 {SQUARE}"] * 2)
    data = found(tmp_path / "train/images", tmp_path / "train/labels")
    assert data.labels.classes == ("background", "car", "tree") and [s.name for s in data.samples] == ["0", "1"]


def test_without_a_table_the_names_are_the_users_or_made_up(tmp_path):
    data_set(tmp_path, [f"1 {SQUARE}"], yaml=None)
    data = found(tmp_path)
    assert data.labels.classes == ("background", "class_1", "class_2") and not data.named
    assert found(tmp_path, classes=["nothing", "x", "y"]).labels.classes == ("background", "x", "y")
    with pytest.raises(MaskError, match=r"class number 1 of .* is class 2"):
        found(tmp_path, classes=["nothing", "x"])


def test_label_studio_names_the_classes_in_a_list(tmp_path):
    data_set(tmp_path, [f"1 {SQUARE}"], folder="", yaml=None, split_first=False)
    (tmp_path / "classes.txt").write_text("car\ntree\n\n")
    (tmp_path / "notes.json").write_text('{"categories": [{"id": 0, "name": "car"}]}')
    data = found(tmp_path)
    assert data.named and data.labels.classes == ("background", "car", "tree")
    (tmp_path / "classes.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"classes\.txt: cannot be read as a list of names"):
        found(tmp_path)
    (tmp_path / "classes.txt").write_text("car\n")
    with pytest.raises(MaskError, match=r"classes\.txt: has 1 names, but class number 1"):
        found(tmp_path)


def test_a_folder_of_several_splits_is_of_none(tmp_path):
    yaml = "path: .\ntrain: images\nval: images\nnames: [car]\n"  # as `convlora convert-masks` writes it
    data = found(data_set(tmp_path, [f"0 {SQUARE}"], "", yaml, split_first=False))
    assert [sample.split for sample in data.samples] == [None]
    assert not any("of the split" in note for note in data.notes)


def test_folders_may_be_at_any_depth(tmp_path):
    data = found(data_set(tmp_path, [f"0 {SQUARE}"], folder="train/ulm/june", split_first=False))
    assert [(s.name, masks_of(data)[s.name].max()) for s in data.samples] == [("0", 1)]


def test_a_class_named_background_is_the_background(tmp_path):
    data = found(data_set(tmp_path, [f"1 {SQUARE}\n0 {SQUARE}"], yaml="names: [Background, cell]"))
    assert data.labels.classes == ("background", "cell") and not masks_of(data)["0"].any()


def test_boxes_are_ignored_among_polygons_and_refused_alone(tmp_path):
    box = "1 0.8 0.8 0.2 0.2"
    data = found(data_set(tmp_path, [f"0 {SQUARE}\n{box}"]))
    mask = masks_of(data)["0"]
    assert (mask == 255).sum() == 80 and (mask == 1).sum() == 320
    assert "1 objects known only by their box: the box is ignored in training and scores" in data.notes
    with pytest.raises(MaskError, match=r"its labels are boxes \(1 of them\)"):
        found(data_set(tmp_path, [box]))


def test_images_without_labels_are_background_and_none_with_any_is_an_error(tmp_path):
    data = found(data_set(tmp_path, [f"0 {SQUARE}", None, "\n"]))
    assert "2 of 3 images without labels are background only: 1, 2" in data.notes
    assert not masks_of(data)["1"].any() and not masks_of(data)["2"].any()
    with pytest.raises(MaskError, match="none of the 3 images has labels"):
        found(data_set(tmp_path, ["", "", ""]), format="yolo")


def test_labels_without_an_image_are_an_error(tmp_path):
    data_set(tmp_path, [f"0 {SQUARE}"])
    (tmp_path / "train/labels/9.txt").write_text(f"0 {SQUARE}")
    (tmp_path / "train/labels/classes.txt").write_text("car\ntree")
    with pytest.raises(PairingError, match=r"1 label files have no image of their name: .*9\.txt"):
        found(tmp_path)


def test_degenerate_polygons_are_counted(tmp_path):
    data = found(data_set(tmp_path, [f"0 {SQUARE}\n0 0.1 0.1 0.2 0.2 0.3 0.3\n1 nan 0.1 0.2 0.2 0.3 0.4"]))
    assert any(note.startswith("left out 2 outlines: ") for note in data.notes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.1 0.1 0.2 0.2 0.3", "line 2: 6 numbers"),
        ("0 0.1 0.1", "line 2: 3 numbers"),
        ("0.5 0.1 0.1 0.2 0.2 0.3 0.1", "no class number"),
        ("-1 0.1 0.1 0.2 0.2 0.3 0.1", "no class number"),
        ("nan 0.1 0.1 0.2 0.2 0.3 0.1", "no class number"),
        ("0 10 10 200 20 30 300", "a coordinate of 10; YOLO's are fractions"),
        ("0 inf 0.1 0.2 0.2 0.3 0.1", "a coordinate of inf"),
        ("car 0.1 0.1 0.2 0.2 0.3 0.1", "not numbers only"),
        ("2 0.1 0.1 0.2 0.2 0.3 0.1", "has 2 names, but class number 2 occurs"),
    ],
)
def test_wrong_lines_are_named(tmp_path, line, message):
    with pytest.raises(MaskError, match=message) as raised:
        found(data_set(tmp_path, [f"0 {SQUARE}\n{line}"]))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("nc: 2", "has no names"),
        ("names: [a, a]", "'a' occurs more than once"),
        ("names: {0: a, 2: b}", "the keys of names are not the numbers 0 to 1"),
        ("names: 3", "holds no list of names"),
        ("names: [", "not a YAML file"),
        ("[" * 5000, "not a YAML file"),
        ("a: &a [x,x]\nb: &b [*a,*a]\nnames: [*b]", "holds no list of names"),
        ("names: !!python/object/apply:os.system [ls]", "not a YAML file"),
        ("x" * 2**21, "larger than"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, yaml, message):
    with pytest.raises(DataError, match=message) as raised:
        found(data_set(tmp_path, [f"0 {SQUARE}"], yaml=yaml))
    assert "\n" not in str(raised.value)


def test_masks_in_a_folder_labels_are_not_taken_for_yolo(tmp_path):
    for folder in ("images", "labels"):
        write_image(tmp_path / folder / "a.png")
    (sample,) = found(tmp_path).samples
    assert (sample.image, sample.mask) == (tmp_path / "images" / "a.png", tmp_path / "labels" / "a.png")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text("0123456789.- \nenaif\x00é", max_size=40) | st.just(f"0 {SQUARE}"), min_size=1, max_size=3),
    st.text("names:[]{}, 0123abc\n-&*!'\"", max_size=30) | st.just(NAMES),
)
def test_any_text_is_read_or_refused_in_one_line(tmp_path, labels, yaml):
    try:
        masks_of(found(data_set(tmp_path, labels, yaml=yaml), format="yolo"))
    except ConvloraError as error:
        assert "\n" not in str(error)


def test_lists_tell_images_of_one_name_in_several_folders_apart(tmp_path):
    splits = {"train": "one", "val": "two", "test": "three"}
    for split, folder in splits.items():
        write_image(tmp_path / folder / "images" / "0.jpg", HEIGHT, WIDTH, seed=len(folder))
        (tmp_path / folder / "labels").mkdir()
        (tmp_path / folder / "labels" / "0.txt").write_text("0 0 0 1 0 1 1\n")
        (tmp_path / f"{split}.txt").write_text(f"C:\\set\\{folder}\\images\\0.jpg\n")
    (tmp_path / "data.yaml").write_text("names: [a]\n" + "".join(f"{split}: {split}.txt\n" for split in splits))
    assert {s.name: s.split for s in found(tmp_path).samples} == {f"{f}/images/0": s for s, f in splits.items()}
    with (tmp_path / "test.txt").open("a") as lines:
        lines.write("./one/images/0.jpg\n")
    with pytest.raises(PairingError, match=r"one/images/0\.jpg is in the lists of test and train"):
        found(tmp_path)
