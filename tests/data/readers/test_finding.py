import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convlora.data.findings.checking import check_data
from convlora.data.labels.format import LabelFormat
from convlora.data.pixels.images import image_size, read_image
from convlora.data.pixels.masks import read_mask
from convlora.data.readers import finding
from convlora.data.readers.found import FoundData
from convlora.data.samples import Sample
from convlora.data.settings import DataSettings
from convlora.errors import DataError, PairingError, SettingsError
from convlora.training.split import Split

LABELS = LabelFormat(("background", "car"), "table", table=((7, 1), (70_000, 0), (255, 255)))


@dataclass(frozen=True)
class Half:
    """One half of an image, and the mask that belongs to it."""

    path: Path
    left: bool

    def __str__(self):
        return f"{self.path}, {'left' if self.left else 'right'} half"

    def size(self, limits):
        return 4, 3

    def read_image(self, limits):
        whole = read_image(self.path, limits)
        return whole[:, :3] if self.left else whole[:, 3:]

    def read_mask(self, limits):
        return np.full((4, 3), 7 if self.left else 70_000, dtype=np.int32)

    def digest(self):
        return f"half {self.left}"


class Halves:
    """A reader of images whose halves are samples."""

    @staticmethod
    def recognise(images, masks):
        return "it holds halves" if (images / "halves.txt").exists() else None

    @staticmethod
    def read(settings):
        path = Path(settings.images) / "a.png"
        parts = [Half(path, left=True), Half(path, left=False)]
        names = ("left", "right")
        return FoundData([Sample(n, part, part) for n, part in zip(names, parts, strict=True)], LABELS, ["two halves"])


@pytest.fixture
def halves(tmp_path, monkeypatch):
    Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3)).save(tmp_path / "a.png")
    (tmp_path / "halves.txt").touch()
    real = finding._reader
    monkeypatch.setattr(finding, "_reader", lambda name: Halves if name == "halves" else real(name))
    monkeypatch.setattr(finding, "FORMATS", (*finding.FORMATS, "halves"))
    return DataSettings(images=str(tmp_path), val_fraction=0, test_fraction=0)


def test_parts_of_files_are_samples_like_others(halves):
    checked = check_data(halves)
    assert checked.labels == LABELS
    assert checked.class_pixels == (12, 12) and checked.largest == (4, 3)
    assert checked.notes[:2] == ["read as halves: it holds halves (--format halves)", "two halves"]
    part = checked.splits["train"][0]
    assert image_size(part.image) == read_image(part.image).shape[:2] == read_mask(part.mask).shape == (4, 3)


def test_a_split_of_parts_is_found_again_by_name_or_says_what_is_gone(halves, monkeypatch):
    checked = check_data(halves)
    split = Split(checked.splits, checked.labels, halves.data_part())
    again = Split.from_json(split.as_json())
    names = {part: [(s.name, s.image, s.mask) for s in samples] for part, samples in split.samples.items()}
    assert {part: [(s.name, s.image, s.mask) for s in samples] for part, samples in again.samples.items()} == names
    assert again.labels == LABELS and all(s.split == "train" for s in again.samples["train"])
    read = Halves.read
    monkeypatch.setattr(Halves, "read", staticmethod(lambda s: FoundData(read(s).samples[:1], LABELS)))
    with pytest.raises(DataError, match="1 images are not there any more: right"):
        Split.from_json(split.as_json())


def test_two_possible_formats_are_told_apart_by_the_user_only(halves, tmp_path):
    (tmp_path / "masks").mkdir()
    Image.new("L", (6, 4)).save(tmp_path / "masks/a.png")
    both = DataSettings(images=halves.images, masks=str(tmp_path / "masks"))
    with pytest.raises(SettingsError, match=r"several formats \(folders: .*; halves: it holds halves\).*--format"):
        finding.find_data(both)


def test_a_folder_of_no_format_says_what_is_missing(tmp_path):
    with pytest.raises(SettingsError, match="masks is missing"):
        finding.find_data(DataSettings(images=str(tmp_path)))
    for images, masks, role in (("none", ".", "images"), ("none", None, "images"), (".", "none", "masks")):
        settings = DataSettings(images=str(tmp_path / images), masks=None if masks is None else str(tmp_path / masks))
        with pytest.raises(PairingError, match=f"^{role}: .*none does not exist"):
            finding.find_data(settings)
    with pytest.raises(PairingError, match="does not exist"):
        finding.find_data(DataSettings(images="a" * 5000))


def test_a_data_set_within_the_folder_is_pointed_out_if_it_is_the_only_one(tmp_path):
    voc = tmp_path / "unpacked/VOCdevkit/VOC2012"
    for folder in ("JPEGImages", "SegmentationClass"):
        (voc / folder).mkdir(parents=True)
    with pytest.raises(SettingsError, match=r"^masks is missing: .*devkit itself is of no format, but .*2012 is voc"):
        finding.find_data(DataSettings(images=str(voc.parent)))
    with pytest.raises(SettingsError, match=r"unpacked itself is of no format, but .*VOC2012 is voc .*Give that\.$"):
        finding.find_data(DataSettings(images=str(voc.parent.parent)))
    shutil.copytree(voc, voc.with_name("VOC2007"))
    with pytest.raises(SettingsError, match=r"VOCdevkit holds no annotations that can be read \(coco, "):
        finding.find_data(DataSettings(images=str(voc.parent)))


def test_values_of_a_table_become_their_classes_and_others_are_refused():
    values = np.array([[7, 70_000, 255]], dtype=np.int32)
    assert LABELS.decode(values, Path("m.png")).tolist() == [[1, 0, 255]]
    with pytest.raises(DataError, match="values 8 are not among the 3 values 7, 255, 70000"):
        LABELS.decode(np.array([[8]], dtype=np.int32), Path("m.png"))
