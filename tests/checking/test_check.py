import json
import re

import numpy as np
import pytest
from scipy import ndimage

from convlora.checking.check import check
from convlora.checking.settings import CheckSettings
from convlora.checking.summary import class_figures
from convlora.errors import DataError, SettingsError
from tests.data.files import data_set, noise, save
from tests.data.findings.sets import FLAWS, hela


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """A page of a set with two flaws, and what it was made of."""
    folder = tmp_path_factory.mktemp("spoilt")
    data = hela(2)
    FLAWS["equal-across-splits"](data)
    FLAWS["specks"](data)
    found = check(CheckSettings(images=str(data.write(folder)), output=str(folder / "out"), augment=True))
    return data, found, found.write(folder / "out")


def test_class_figures_equal_those_counted_with_scipy(spoilt):
    data, found, _ = spoilt
    background, foreground = class_figures(found.survey)
    masks = {name: pair.mask > 0 for name, pair in data.pairs.items()}
    labelled = [ndimage.label(mask, np.ones((3, 3))) for mask in masks.values()]
    areas = np.concatenate([np.bincount(labels.ravel())[1:] for labels, _ in labelled])
    assert foreground.objects == len(areas) and foreground.median_area == int(np.median(areas))
    assert foreground.tiny == (areas * 4 < 256).sum()  # images of 256 pixels are seen at 512
    for split in ("train", "val", "test"):
        own = [masks[name] for name in data.of(split)]
        assert foreground.pixels[split] == sum(mask.sum() for mask in own)
        assert background.pixels[split] == sum((~mask).sum() for mask in own)
        assert foreground.images[split] == len(own)


def test_json_holds_the_findings_and_can_be_read_again(spoilt):
    _, found, page = spoilt
    told = json.loads((page.parent / "check.json").read_text())
    assert told == json.loads(json.dumps(found.as_json()))
    assert [finding["kind"] for finding in told["findings"]] == ["equal-across-splits", "specks"]
    assert told["format"]["name"] == "csv" and told["splits"] == {"train": 8, "val": 4, "test": 4}
    assert not any("several splits" in note for note in told["notes"])  # it is told once


def test_the_page_is_whole_and_shows_findings_examples_and_augmentation(spoilt):
    _, found, page = spoilt
    text = page.read_text(encoding="utf-8")
    assert all(str(finding.remedy)[:40] in text for finding in found.data.findings)
    # 2 + 4 of the findings, 4 examples of one class, 3 rows of an image and 6 views
    assert len(re.findall(r'<img src="data:image/png;base64,', text)) == 2 + 4 + 4 + 3 * 7
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert [path.name for path in sorted(page.parent.iterdir())] == ["check.html", "check.json"]


def test_names_from_files_are_escaped_on_the_page(tmp_path):
    data = hela(4)
    FLAWS["equal-across-splits"](data)
    data.pairs = {f"<b>{i}&": pair for i, pair in enumerate(data.pairs.values())}
    page = check(CheckSettings(images=str(data.write(tmp_path)))).write(tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;0&amp;" in text and "<b>" not in text


def test_classes_that_overlap_get_a_page_too(tmp_path):
    folders = data_set(tmp_path, [np.array([[0, 1, 2, 2]] * 24, dtype=np.uint8)] * 5)
    settings = CheckSettings(**folders, output=str(tmp_path / "out"), augment=True, task="multilabel")
    page = check(settings).write(tmp_path / "out")
    assert page.read_text(encoding="utf-8").count("<img ") >= 7


def test_the_format_is_told_once(tmp_path):
    for i in range(6):
        save(tmp_path / "images" / f"s{i}.png", noise(24, 32, seed=i))
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"s{i}.txt").write_text("0 0.2 0.2 0.8 0.2 0.8 0.7\n")
    found = check(CheckSettings(images=str(tmp_path)))
    told = found.as_json()
    assert told["format"]["name"] == "yolo" and not any("read as yolo" in note for note in told["notes"])
    page = found.write(tmp_path / "out").read_text(encoding="utf-8")
    assert page.count(told["format"]["reason"]) == 1


def test_raw_channels_are_told_on_the_page_and_have_no_saturation(tmp_path):
    for i in range(6):
        values = noise(24, 32, 4, seed=i, dtype=np.uint16)
        (tmp_path / "images").mkdir(exist_ok=True)
        np.save(tmp_path / "images" / f"s{i}.npy", values)
        save(tmp_path / "masks" / f"s{i}.png", np.eye(24, 32, dtype=np.uint8))
    settings = CheckSettings(images=str(tmp_path), channels=4, augment=True, output="out")
    page = check(settings).write(tmp_path / "out").read_text(encoding="utf-8")
    assert re.findall(r"channel (\d): mean [\d.]+", page) == ["0", "1", "2", "3"]
    assert "brightness 0.2" in page and "saturation" not in page


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 0}, "image_size=0 must be"),
        ({"tile": 0}, "tile=0 must be"),
        ({"augment": True}, "give its folder with --output"),
        ({"val_fraction": 2.0}, "val_fraction=2.0"),
    ],
)
def test_wrong_settings_are_told(tmp_path, values, message):
    with pytest.raises(SettingsError, match=message):
        check(CheckSettings(images=str(tmp_path), **values))


def test_data_that_cannot_be_used_leave_no_page(tmp_path):
    folders = data_set(tmp_path, [np.full((6, 8), 9, dtype=np.uint8)] * 3)
    (tmp_path / "images/s00.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="s00"):
        check(CheckSettings(**folders, output=str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()
