import pickle
import re

import datasets
import numpy as np
import pytest
from PIL import Image

from convlora.data.findings.checking import check_data
from convlora.data.readers import hf
from convlora.data.settings import DataSettings
from convlora.errors import ConvloraError, DataError, SettingsError
from tests.data.readers.drawing import found
from tests.data.readers.tables import IMAGES, MASKS, ROWS, pixels

PAIR = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for cached in (hf._load, hf._columns):
        cached.cache_clear()


def part(rows=range(ROWS), features=PAIR, **columns):
    given = columns or {
        "image": [Image.fromarray(IMAGES[i]) for i in rows],
        "mask": [Image.fromarray(MASKS[i]) for i in rows],
    }
    return datasets.Dataset.from_dict(given, features=features)


def save(data, path):
    data.save_to_disk(str(path))
    return path


def test_a_saved_data_set_is_read_with_its_splits(tmp_path):
    whole = datasets.DatasetDict(train=part(range(4)), validation=part(range(4, 6)), test=part(range(6, 7)))
    data = found(save(whole, tmp_path / "saved"))
    assert [(s.name, s.split) for s in data.samples] == [
        ("test-000000", "test"),
        *((f"train-{i:06d}", "train") for i in range(4)),
        *((f"validation-{i:06d}", "val") for i in range(2)),
    ]
    images, masks = pixels(data)
    order = [6, 0, 1, 2, 3, 4, 5]
    np.testing.assert_array_equal(images, [IMAGES[i] for i in order])
    np.testing.assert_array_equal(masks, [MASKS[i] for i in order])
    assert pickle.loads(pickle.dumps(data.samples)) == data.samples  # noqa: S301  # our own


def test_one_part_is_split_by_the_settings(tmp_path):
    checked = check_data(DataSettings(images=str(save(part(), tmp_path / "one"))))
    assert {split: len(samples) for split, samples in checked.splits.items()} == {"train": 5, "val": 1, "test": 1}


def test_a_column_of_groups_keeps_rows_together(tmp_path):
    columns = {"image": part()["image"], "mask": part()["mask"], "group": [i // 2 for i in range(ROWS)]}
    features = datasets.Features({**PAIR, "group": datasets.Value("int64")})
    data = found(save(part(features=features, **columns), tmp_path / "grouped"))
    assert [s.group for s in data.samples] == [str(i // 2) for i in range(ROWS)]


def test_masks_may_be_tables_of_class_labels_which_name_the_classes(tmp_path):
    names = ["soil", "leaf", "stem"]
    features = datasets.Features(
        {"photo": datasets.Image(), "seg": datasets.List(datasets.List(datasets.ClassLabel(names=names)))}
    )
    saved = save(
        part(features=features, photo=[Image.fromarray(i) for i in IMAGES], seg=[m.tolist() for m in MASKS]),
        tmp_path / "grid",
    )
    data = found(saved)
    assert data.labels.classes == tuple(names)
    np.testing.assert_array_equal(pixels(data)[1], MASKS)


def test_a_class_label_of_whole_images_does_not_name_the_classes_of_pixels(tmp_path):
    features = datasets.Features({**PAIR, "scene": datasets.ClassLabel(names=["street", "room"])})
    columns = {name: [Image.fromarray(a) for a in arrays] for name, arrays in (("image", IMAGES), ("mask", MASKS))}
    saved = save(part(features=features, **columns, scene=[0] * ROWS), tmp_path / "scenes")
    assert found(saved).labels is None
    (saved / "id2label.json").write_text('{"0": "soil", "1": "leaf", "2": "stem"}')
    assert found(saved).labels.classes == ("soil", "leaf", "stem")


def test_columns_that_are_not_clear_are_told(tmp_path):
    features = datasets.Features({name: datasets.Image() for name in ("one", "two", "three")})
    saved = save(
        part(features=features, **{name: [Image.fromarray(i) for i in IMAGES] for name in features}), tmp_path / "x"
    )
    with pytest.raises(SettingsError, match="which column holds the images is not clear: one, two, three"):
        found(saved)
    assert len(found(saved, image_column="two", mask_column="one").samples) == ROWS


def test_damaged_folders_give_errors_only(tmp_path):
    saved = save(part(), tmp_path / "saved")
    rng = np.random.default_rng(0)
    for file in sorted(path for path in saved.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for _ in range(12):
            data = bytearray(whole)
            for place in rng.integers(0, len(data), 3):
                data[place] = rng.integers(0, 256)
            file.write_bytes(data[: rng.integers(1, len(data) + 1)])
            quiet_caches()
            try:
                pixels(found(saved, format="hf"))
            except ConvloraError as error:
                assert "\n" not in str(error)
        file.write_bytes(whole)


def quiet_caches():
    for cached in (hf._load, hf._columns):
        cached.cache_clear()


def test_names_on_the_hub_are_recognised_and_checked(monkeypatch):
    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        whole = datasets.DatasetDict(train=part(range(5)), validation=part(range(5, 7)))
        return {k: v.to_iterable_dataset() for k, v in whole.items()} if options["streaming"] else whole

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = found("hf:nobody/leaves:small@main")
    assert len(data.samples) == ROWS and "read as hf: hf:nobody/leaves" in data.notes[0]
    data = found("hf:nobody/leaves[:2]")
    assert [s.name for s in data.samples] == [f"{split}-{i:06d}" for split in ("train", "validation") for i in range(2)]
    np.testing.assert_array_equal(pixels(data)[1], [MASKS[i] for i in (0, 1, 5, 6)])
    assert asked == [
        (("nobody/leaves", "small"), {"revision": "main", "streaming": False}),
        (("nobody/leaves", None), {"revision": None, "streaming": True}),
    ]
    assert DataSettings(images="hf:nobody/leaves").data_part().images == "hf:nobody/leaves"


@pytest.mark.parametrize("name", ["hf:", "hf:../../etc", "hf:a/b/c", "hf:a b", "hf:a/b[:x]", "hf:/etc/passwd"])
def test_names_that_are_none_are_refused(name):
    with pytest.raises(SettingsError, match=re.escape(f"images={name!r} must be hf:OWNER/NAME")):
        found(name)


def test_a_data_set_that_cannot_be_had_is_one_line(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError, match=r"hf:nobody/nothing: cannot be loaded .* code of a data set is never run"
    ) as caught:
        found("hf:nobody/nothing")
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError, match="the masks are a column"):
        found("hf:nobody/nothing", "masks")
