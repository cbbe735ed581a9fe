import hashlib
import shutil
import subprocess
import sys
from collections import Counter
from urllib.request import ProxyHandler, build_opener

import numpy as np
import pytest

from convlora.data.catalog.fetching import Record
from convlora.data.catalog.get import get_set
from convlora.data.catalog.sets import SETS
from convlora.data.catalog.settings import GetSettings
from convlora.data.findings.checking import check_data
from convlora.data.readers.listing import read_listing
from convlora.data.settings import DataSettings
from convlora.errors import DataError, OutputError, SettingsError
from tests.cli.commands import snapshot
from tests.data.catalog.archives import members, picture, png, write_zip
from tests.data.catalog.server import serving


def settings(tmp_path, name="leaf", **changes):
    return GetSettings(name=name, output=str(tmp_path / "data"), **changes)


def local(tmp_path, name="leaf", files=None, **changes):
    """Get a set from a zip file."""
    path = write_zip(tmp_path / "given.zip", members(name) if files is None else files)
    return get_set(settings(tmp_path, name, archive=str(path), **changes))


def changed(name="leaf", **replaced):
    """An archive in which files, named without the folder, are other ones, or missing if None."""
    root = SETS[name].archive
    files = members(name) | {f"{root}/{path}": content for path, content in replaced.items()}
    return {path: content for path, content in files.items() if content is not None}


@pytest.mark.parametrize("name", SETS)
def test_every_set_becomes_files_that_training_and_evaluation_read(tmp_path, name):
    data = local(tmp_path, name)
    checked = check_data(DataSettings(images=str(data.listing), mask_format="binary" if SETS[name].binary else "ids"))
    tests = SETS[name].tests
    counts = {split: len(part) for split, part in checked.splits.items()}
    assert counts == {"train": 4, "val": 2, "test": 2 * len(tests)}
    listed = Counter()
    for test in tests:
        part = read_listing(data.folder / test.csv)
        assert len(part) == 2
        listed.update(sample.image for sample in part)
    assert listed == Counter(sample.image for sample in checked.splits["test"])
    source = (data.folder / "SOURCE.md").read_text()
    assert SETS[name].origin in source and data.record.sha256 in source and "not ours" in source
    assert not any(path.name.startswith(".") for path in data.folder.iterdir())


def test_images_and_masks_are_those_of_the_archive(tmp_path):
    data = local(tmp_path)
    for sample in read_listing(data.listing):
        inside = f"leaf_disease_segmentation/{sample.image.relative_to(data.folder)}"
        assert sample.image.read_bytes() == members("leaf")[inside]
        assert sample.mask.parent == data.folder / "masks"


def test_a_download_is_recorded_laid_out_and_not_repeated(tmp_path):
    content = write_zip(tmp_path / "x.zip", members("leaf")).read_bytes()
    seen = []
    opener = build_opener(ProxyHandler({}))
    with serving(content) as (site, url):
        data = get_set(settings(tmp_path), url=url, opener=opener, progress=lambda *event: seen.append(event))
        assert data.made and data.trusted and len(site.ranges) == 1
        assert (data.record.bytes, data.record.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        before = snapshot(tmp_path / "data")
        again = get_set(settings(tmp_path), url=url, opener=opener)
        assert not again.made and not again.trusted and len(site.ranges) == 1
    assert again.layout == data.layout and again.record == data.record == Record.read(settings(tmp_path).record)
    assert snapshot(tmp_path / "data") == before
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"leaf", "leaf.archive.json", ".leaf.lock"}
    assert list(dict.fromkeys(event[0] for event in seen)) == [
        "downloading",
        "unpacking",
        "looking at masks",
    ]
    assert ("downloading", len(content), len(content)) in seen and ("looking at masks", 8, 8) in seen


def test_the_archive_is_kept_on_request_and_used_again(tmp_path):
    content = write_zip(tmp_path / "x.zip", members("leaf")).read_bytes()
    opener = build_opener(ProxyHandler({}))
    with serving(content) as (site, url):
        get_set(settings(tmp_path, keep_archive=True), url=url, opener=opener)
        shutil.rmtree(tmp_path / "data" / "leaf")
        assert get_set(settings(tmp_path), url=url, opener=opener).made and len(site.ranges) == 1
    assert not (tmp_path / "data" / ".leaf.zip").exists()


def test_a_file_of_the_name_of_the_archive_is_neither_used_nor_removed(tmp_path):
    content = write_zip(tmp_path / "x.zip", members("leaf")).read_bytes()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "leaf.zip").write_bytes(b"mine")
    with serving(content) as (_, url):
        data = get_set(settings(tmp_path), url=url, opener=build_opener(ProxyHandler({})))
    assert (
        data.record.sha256 == hashlib.sha256(content).hexdigest()
        and f"- archive: {url}\n" in (data.folder / "SOURCE.md").read_text()
    )
    assert (tmp_path / "data" / "leaf.zip").read_bytes() == b"mine"


def test_another_archive_than_the_first_is_refused_unless_its_hash_is_given(tmp_path):
    local(tmp_path)
    shutil.rmtree(tmp_path / "data" / "leaf")
    other = changed(**{"images/0.jpg": png(picture(99)[0], format="JPEG")})
    with pytest.raises(
        DataError, match=r"SHA-256 .* but .*leaf\.archive\.json says of the first one .*nothing was unpacked"
    ):
        local(tmp_path, files=other)
    assert not (tmp_path / "data" / "leaf").exists()
    right = hashlib.sha256((tmp_path / "given.zip").read_bytes()).hexdigest()
    data = local(tmp_path, files=other, sha256=right.upper())
    assert data.made and not data.trusted and Record.read(settings(tmp_path).record).sha256 == right


def test_a_hash_that_is_given_counts_for_the_first_download_and_for_what_is_there(tmp_path):
    with pytest.raises(DataError, match="--sha256 says 0000"):
        local(tmp_path, sha256="0" * 64)
    assert not settings(tmp_path).record.exists()
    local(tmp_path)
    with pytest.raises(DataError, match="was made from an archive of SHA-256"):
        local(tmp_path, sha256="0" * 64)
    with pytest.raises(SettingsError, match="must be 64 hexadecimal digits"):
        local(tmp_path, sha256="abc")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"x/readme.txt": b""}, "holds no train.csv, so it is not the archive of leaf"),
        (changed(**{"test.csv": None}), "holds no test.csv beside train.csv"),
        (changed(**{"val.csv": b"picture,label\n"}), r"val.csv: its first line is 'picture,label', but must name"),
        (changed(**{"val.csv": b""}), "val.csv: its first line is ''"),
        (changed(**{"images/1.jpg": None}), "train.csv: 1 missing files: images/1.jpg"),
        (changed(**{"train.csv": b"image,label\n../x.png,masks/0.png\n"}), "train.csv: 1 missing files"),
        (changed(**{"masks/0.png": b"\x89PNG\r\n\x1a\n"}), "masks/0.png: damaged"),
        (
            changed(**{"samples.csv/x": b"", "SOURCE.md/x": b""}),
            "leaf holds samples.csv, SOURCE.md, where this program",
        ),
        (changed(**{"masks-repaired": b""}), "leaf holds masks-repaired, where this program"),
        ({**members("leaf"), "../../x": b""}, "1 of .* members are named so that they would lie outside"),
        ({**members("leaf"), "bomb": bytes(50_000_000)}, "times its size"),
    ],
)
def test_an_archive_of_another_shape_leaves_nothing(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        local(tmp_path, files=files)
    assert {path.name for path in (tmp_path / "data").iterdir()} == {".leaf.lock"}
    assert local(tmp_path).made  # what was refused was not recorded as known


def test_a_listing_cannot_take_in_files_from_outside(tmp_path):
    (tmp_path / "secret.png").write_bytes(png(picture(0)[0]))
    for path in ("../../secret.png", str(tmp_path / "secret.png")):
        with pytest.raises(DataError, match=r"lists 1 files outside it: .*secret.png"):
            local(tmp_path, files=changed(**{"val.csv": f"image,label\n{path},masks/5.png\n".encode()}))


def test_a_broken_download_that_is_no_archive_is_not_kept(tmp_path):
    with serving(b"<html>busy</html>") as (_, url), pytest.raises(DataError, match="not a zip archive"):
        get_set(settings(tmp_path), url=url, opener=build_opener(ProxyHandler({})))
    assert {path.name for path in (tmp_path / "data").iterdir()} == {".leaf.lock"}


def test_ctrl_c_while_masks_are_looked_at_keeps_the_download_and_nothing_else(tmp_path):
    content = write_zip(tmp_path / "x.zip", members("leaf")).read_bytes()

    def stop(stage, done, total):
        if stage == "looking at masks":
            raise KeyboardInterrupt

    opener = build_opener(ProxyHandler({}))
    with serving(content) as (site, url):
        with pytest.raises(KeyboardInterrupt):
            get_set(settings(tmp_path), url=url, opener=opener, progress=stop)
        assert {path.name for path in (tmp_path / "data").iterdir()} == {".leaf.lock", ".leaf.zip"}
        assert get_set(settings(tmp_path), url=url, opener=opener).made and len(site.ranges) == 1


def test_images_of_several_parts_are_left_to_the_last_and_told(tmp_path):
    lines = b"image,label\n" + b"".join(b"images/%d.jpg,masks/%d.png\n" % (i, i) for i in (2, 3, 6))
    data = local(tmp_path, files=changed(**{"train.csv": lines}))
    assert data.layout.counts == {"train": 2, "val": 2, "test": 2}
    assert "1 images of train are in a later part, too, and were left out of train" in data.layout.notes
    assert check_data(DataSettings(images=str(data.listing))).splits["train"]


def test_repaired_masks_are_used_and_told(tmp_path):
    _, ids = picture(0)
    data = local(tmp_path, files=changed(**{"masks/0.png": png(ids * 200), "masks/6.png": png(ids[:20] * 255)}))
    found = {sample.name: sample.mask for sample in read_listing(data.listing)}
    assert found["0"] == data.folder / "masks-repaired" / "masks" / "0.png.48x40.png"
    assert (
        read_listing(data.folder / "test.csv")[0].mask == data.folder / "masks-repaired" / "masks" / "6.png.48x40.png"
    )
    assert [note.split(" masks")[0] for note in data.layout.notes[:2]] == ["1", "1"]
    assert check_data(DataSettings(images=str(data.listing), mask_format="binary")).class_pixels[1] > np.sum(ids)


def test_another_number_of_test_images_than_in_the_literature_is_told(tmp_path):
    notes = local(tmp_path, "polyp").layout.notes
    assert [note.split(":")[0] for note in notes] == ["CVC-ClinicDB", "Kvasir"]
    assert "2 test images, where the literature has 100" in notes[1]


def test_a_folder_that_lacks_files_or_is_not_ours_is_refused_and_left_alone(tmp_path):
    data = local(tmp_path)
    (data.folder / "images" / "0.jpg").unlink()
    with pytest.raises(DataError, match=r"1 missing files: images/0.jpg.* Or remove .*leaf to make it anew"):
        local(tmp_path)
    (tmp_path / "data" / "road").mkdir()
    (tmp_path / "data" / "road" / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match=r"road is there, but .*layout.json is not"):
        local(tmp_path, "road")
    assert (tmp_path / "data" / "road" / "mine.txt").read_text() == "x"


def test_trans10k_says_how_to_get_it_and_leaves_no_folder(tmp_path):
    with pytest.raises(
        DataError, match=r"trans10k cannot be downloaded .*masks_12/NAME_mask.png, and give it as --archive"
    ):
        get_set(settings(tmp_path, "trans10k"))
    assert list(tmp_path.iterdir()) == []
    files = members("trans10k")
    del files["Trans10K_cls12/train/masks_12/0_mask.png"]
    with pytest.raises(DataError, match=r"1 images have no mask \(train/images/0.jpg\)"):
        local(tmp_path, "trans10k", files)
    only_train = {path: content for path, content in members("trans10k").items() if "/train/" in path}
    with pytest.raises(DataError, match="no images in validation/images; there are no images in test/images"):
        local(tmp_path, "trans10k", only_train)


def test_unknown_sets_and_missing_archives_are_told(tmp_path):
    with pytest.raises(
        SettingsError, match=r"there is no set 'isic': it must be one of polyp, .*Did you mean 'isic2017'"
    ):
        get_set(settings(tmp_path, "isic"))
    with pytest.raises(DataError, match=r"none.zip is no file; give the zip archive of leaf"):
        get_set(settings(tmp_path, archive=str(tmp_path / "none.zip")))
    assert list(tmp_path.iterdir()) == []


def test_addresses_of_the_catalogue_are_https():
    assert [entry.name for entry in SETS.values() if entry.url is None] == ["trans10k"]
    assert all(entry.url.startswith("https://") and entry.url.endswith(".zip") for entry in SETS.values() if entry.url)


def test_two_processes_do_not_make_one_folder(tmp_path):
    (tmp_path / "data").mkdir()
    code = "import fcntl, sys; s = open(sys.argv[1], 'w'); fcntl.lockf(s, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path / "data" / ".leaf.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(OutputError, match="leaf is being made by another process"):
            local(tmp_path)
        other.communicate(b"\n")
    assert local(tmp_path).made
