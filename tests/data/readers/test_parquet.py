import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from convlora.data.findings.checking import check_data
from convlora.data.readers import parquet as reader
from convlora.data.settings import DataSettings
from convlora.data.sources import digest
from convlora.errors import ConvloraError, DataError, ImageError, PairingError, SettingsError
from convlora.training.split import Split
from tests.data.readers.drawing import found
from tests.data.readers.tables import IMAGES, MASKS, ROWS, pixels, png


def write(path, columns, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path, **options)
    return path


def encoded(**more):
    return {"image": [png(image) for image in IMAGES], "mask": [png(mask) for mask in MASKS]} | more


def as_structs(arrays):
    return [{"bytes": png(array), "path": f"{i}.png"} for i, array in enumerate(arrays)]


def assert_same(data):
    images, masks = pixels(data)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(masks, MASKS)


@pytest.mark.parametrize("row_group_size", [1, 3, 100])
@pytest.mark.parametrize("form", ["bytes", "structs", "large", "grid", "paths"])
def test_all_forms_of_columns_hold_the_same_pixels(tmp_path, form, row_group_size):
    columns = encoded()
    if form == "structs":
        columns = {"image": as_structs(IMAGES), "mask": as_structs(MASKS)}
    elif form == "large":
        columns = {name: pa.array(values, pa.large_binary()) for name, values in columns.items()}
    elif form == "grid":
        columns["mask"] = [mask.tolist() for mask in MASKS]
    elif form == "paths":
        (tmp_path / "sub").mkdir()
        for name, arrays in (("i", IMAGES), ("m", MASKS)):
            for i, array in enumerate(arrays):
                Image.fromarray(array).save(tmp_path / f"sub/{name}{i}.png")
        columns = {key: [f"sub/{key[0]}{i}.png" for i in range(ROWS)] for key in ("image", "mask")}
    data = found(write(tmp_path / "t.parquet", columns, row_group_size=row_group_size))
    assert_same(data)
    assert [s.name for s in data.samples] == [f"{i:06d}" for i in range(ROWS)]


def test_values_are_read_again_after_they_were_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_KEPT", 1)
    data = found(write(tmp_path / "t.parquet", encoded(), row_group_size=2))
    assert_same(data)
    assert_same(data)


def test_splits_and_groups_are_columns_or_names_of_files(tmp_path):
    splits = ["train"] * 4 + ["validation"] * 2 + ["test"]
    data = found(write(tmp_path / "t.parquet", encoded(split=splits, group=[f"g{i // 2}" for i in range(ROWS)])))
    assert [s.split for s in data.samples] == ["train"] * 4 + ["val"] * 2 + ["test"]
    assert [s.group for s in data.samples] == ["g0", "g0", "g1", "g1", "g2", "g2", "g3"]
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"):
        write(tmp_path / f"hub/data/{name}.parquet", encoded())
    data = found(tmp_path / "hub")
    assert len({s.name for s in data.samples}) == 3 * ROWS
    assert [s.split for s in data.samples] == ["train"] * 2 * ROWS + ["val"] * ROWS


@pytest.mark.parametrize("kind", [pa.int64(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_groups_may_be_numbers_or_categories_and_other_columns_are_not_passed_over(tmp_path, kind):
    numbers = [i // 2 for i in range(ROWS)]
    group = pa.array([str(n) for n in numbers]).cast(kind) if kind != pa.int64() else pa.array(numbers)
    data = found(write(tmp_path / "t.parquet", encoded(Group=group)))
    assert [s.group for s in data.samples] == [str(n) for n in numbers]
    with pytest.raises(DataError, match="column group is of type double, but must be text or whole numbers"):
        found(write(tmp_path / "t.parquet", encoded(group=[0.5] * ROWS)))
    with pytest.raises(DataError, match="1 splits other than train, val, test: holdout"):
        found(write(tmp_path / "t.parquet", encoded(split=["train"] * (ROWS - 1) + ["holdout"])))


def test_names_of_classes_are_in_a_file_beside_the_table(tmp_path):
    path = write(tmp_path / "t.parquet", encoded())
    (tmp_path / "id2label.json").write_text('{"0": "soil", "2": "stem", "1": "leaf"}')
    assert found(path).labels.classes == ("soil", "leaf", "stem")
    for text in ('{"0": "a", "2": "b"}', "[]", '{"0": 1}', '{"x": "a"}', "{", '{"0": "a", "1": "a"}', '{"0": "a"}'):
        (tmp_path / "id2label.json").write_text(text)
        with pytest.raises(DataError):
            found(path)


def test_columns_are_found_by_their_names_or_told(tmp_path):
    images, masks = encoded().values()
    data = found(write(tmp_path / "a.parquet", {"id": ["x"] * ROWS, "annotation": masks, "image": images}))
    assert_same(data)
    odd = write(tmp_path / "b.parquet", {"left": images, "right": images, "truth": masks})
    with pytest.raises(
        SettingsError, match=r"which column holds the images is not clear: left, right, truth\. Name it"
    ):
        found(odd)
    assert_same(found(odd, image_column="left", mask_column="truth"))
    with pytest.raises(SettingsError, match="mask_column='labels' is not among the columns of masks: right, truth"):
        found(odd, image_column="left", mask_column="labels")
    with pytest.raises(SettingsError, match="which column holds the images is not clear: there is none"):
        found(write(tmp_path / "c.parquet", {"x": [1, 2]}))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (encoded(image=[None] * ROWS), None),
        (encoded(mask=[b""] * ROWS), "mask: not a PNG, JPEG"),
        (encoded(mask=[[[1, 2], [3]]] * ROWS), "its rows are not of equal length"),
        (encoded(mask=[png(MASKS[0][:3])] * ROWS), "Resize the mask"),
        ({"image": ["../../etc/passwd"], "mask": ["m.png"]}, "2 of the paths in it lead to no image file"),
        (
            encoded(image=[*as_structs(IMAGES[:6]), {"bytes": None, "path": "gone.png"}]),
            "empty but for the path 'gone.png'",
        ),
    ],
)
def test_rows_without_pixels_are_told(tmp_path, columns, message):
    if message is None:
        columns, message = encoded(image=pa.array([None] * ROWS, pa.binary())), "row 0, image: is empty; remove the row"
    with pytest.raises(ConvloraError, match=message):
        check_data(DataSettings(images=str(write(tmp_path / "t.parquet", columns))))


def test_empty_tables_other_settings_and_absent_files_are_refused(tmp_path):
    path = write(tmp_path / "t.parquet", {"image": pa.array([], pa.binary()), "mask": pa.array([], pa.binary())})
    with pytest.raises(DataError, match="has 0 rows"):
        found(path)
    with pytest.raises(PairingError, match="the masks are a column of the table"):
        found(path, tmp_path, format="parquet")
    with pytest.raises(PairingError, match=r"there is no \.parquet file in it"):
        found(tmp_path / "t", format="parquet")


def test_a_table_that_changed_is_an_error_not_a_crash(tmp_path):
    path = write(tmp_path / "t.parquet", encoded())
    data = found(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(ImageError, match=r"row 0, image: cannot be read"):
        pixels(data)
    path.unlink()
    with pytest.raises(ImageError, match="cannot be read"):
        pixels(data)


def test_samples_go_to_worker_processes_and_into_the_run_and_back(tmp_path):
    path = write(tmp_path / "t.parquet", encoded())
    checked = check_data(DataSettings(images=str(path)))
    sample = checked.splits["train"][0]
    again = pickle.loads(pickle.dumps(sample))  # noqa: S301  # our own
    assert again == sample and digest(again.image) == digest(sample.image) and hash(again.image) == hash(sample.image)
    written = json.loads(json.dumps(Split(checked.splits, checked.labels, DataSettings(images=str(path))).as_json()))
    assert Split.from_json(written).samples["test"][0].image == checked.splits["test"][0].image


def test_damaged_tables_give_errors_only(tmp_path):
    path = write(tmp_path / "t.parquet", encoded(), row_group_size=3)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for i in range(150):
        data = bytearray(whole)
        for place in rng.integers(-400 if i % 2 else 0, 0 if i % 2 else len(data), 4):  # the last part is the directory
            data[place] = rng.integers(0, 256)
        path.write_bytes(data if i % 3 else data[: rng.integers(0, len(data))])
        try:
            pixels(found(path, format="parquet"))
        except ConvloraError as error:
            assert "\n" not in str(error)
