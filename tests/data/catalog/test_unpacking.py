import errno
import random
import struct
import zipfile
from pathlib import PurePosixPath

import pytest

from convlora.data.catalog.unpacking import DEFAULT_ARCHIVE_LIMITS, ArchiveLimits, folder_of, opened_archive, unpack
from convlora.errors import DataError
from tests.data.catalog.archives import write_zip


def unpack_all(path, folder, limits=DEFAULT_ARCHIVE_LIMITS):
    folder.mkdir()
    with opened_archive(path, limits) as archive:
        unpack(archive, PurePosixPath(), folder, lambda done, total: None)


def special(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_lies_below_the_root_is_unpacked_and_the_finders_files_are_not(tmp_path):
    content = {
        "a/b/x.csv": b"1",
        "a/b/images/y.png": b"2",
        "a/z": b"3",
        "__MACOSX/a/b/._x.csv": b"",
        "a/b/.DS_Store": b"",
    }
    path = write_zip(tmp_path / "a.zip", content)
    seen = []
    (tmp_path / "out").mkdir()
    with opened_archive(path, DEFAULT_ARCHIVE_LIMITS) as archive:
        root = folder_of(archive, "x.csv")
        unpack(archive, root, tmp_path / "out", lambda done, total: seen.append((done, total)))
    assert root == PurePosixPath("a/b") and files(tmp_path / "out") == {"x.csv", "images/y.png"} and seen[-1] == (2, 2)


def test_the_topmost_folder_counts(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"p/old/train.csv": b"", "p/train.csv": b"", "p/train/images/1.jpg": b""})
    with opened_archive(path, DEFAULT_ARCHIVE_LIMITS) as archive:
        assert folder_of(archive, "train.csv") == PurePosixPath("p")
        assert folder_of(archive, "train", "images") == PurePosixPath("p")
        assert folder_of(archive, "none.csv") is None


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "C:\\x", "C:/x", "a\\..\\x", "..\\x"])
def test_names_that_lead_outside_are_refused(tmp_path, name):
    path = write_zip(tmp_path / "in" / "a.zip", {"good": b"1", name: b"2"})
    with pytest.raises(
        DataError, match=r"1 of 2 members are named so that they would lie outside .*Nothing was unpacked"
    ):
        unpack_all(path, tmp_path / "in" / "out")
    assert files(tmp_path) == {"in/a.zip"}


@pytest.mark.parametrize("mode", [0o120777, 0o010644, 0o020644])
def test_links_and_devices_are_refused(tmp_path, mode):
    path = write_zip(tmp_path / "a.zip", {"good": b"1"})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(special("bad", mode), "/etc/passwd")
    with pytest.raises(DataError, match="1 of 2 members are links or other things that are no files: bad"):
        unpack_all(path, tmp_path / "out")


def test_a_bomb_is_refused_before_it_goes_off(tmp_path):
    path = write_zip(tmp_path / "a.zip", {f"{i}.png": bytes(3_000_000) for i in range(3)})
    with pytest.raises(DataError, match=r"MB would unpack to 9 MB, more than .* 100 times its size"):
        unpack_all(path, tmp_path / "out")
    with pytest.raises(DataError, match=r"would unpack to 9 MB, more than 0.005 GB"):
        unpack_all(path, tmp_path / "again", ArchiveLimits(bytes=5_000_000, ratio=1e9))
    assert files(tmp_path) == {"a.zip"}


def test_a_bomb_that_lies_about_its_size_does_not_write_more_than_it_says(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x": bytes(3_000_000)})
    content = bytearray(path.read_bytes())
    size = struct.pack("<I", 3_000_000)
    assert content.count(size) == 2  # local header and directory
    path.write_bytes(content.replace(size, struct.pack("<I", 1000)))
    with pytest.raises(DataError, match="not a zip archive, damaged"):
        unpack_all(path, tmp_path / "out")
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*")) <= 1000


def test_too_many_files_and_names_that_come_twice_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a": b"", "b": b"", "c": b""})
    with pytest.raises(DataError, match="3 members, more than the 2 allowed"):
        unpack_all(path, tmp_path / "out", ArchiveLimits(files=2))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("a", "other")
    with pytest.raises(DataError, match=r"1 of 4 members are there twice, .*: a\."):
        unpack_all(path, tmp_path / "again")


@pytest.mark.parametrize(
    ("names", "bad"), [(["a", "a/b"], "a"), (["a/b/c", "a-b", "a"], "a"), (["a/x", "a/."], "a"), (["a", "./a"], "a")]
)
def test_names_that_cannot_stand_beside_each_other_are_refused(tmp_path, names, bad):
    path = write_zip(tmp_path / "a.zip", dict.fromkeys(names, b"1"))
    with pytest.raises(DataError, match=f"1 of .* members are there twice, or as file and as folder: {bad}\\."):
        unpack_all(path, tmp_path / "out")
    assert files(tmp_path) == {"a.zip"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_is_told_however_the_member_is_compressed(tmp_path, method):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x", random.Random(0).randbytes(20_000))
    content = bytearray(path.read_bytes())
    content[60:260] = bytes(byte ^ 0x5A for byte in content[60:260])
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip: not a zip archive, damaged or cut short"):
        unpack_all(path, tmp_path / "out")


def test_a_full_disk_is_not_taken_for_damage(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x": b"1"})
    with pytest.raises(OSError, match="No space left"), opened_archive(path, DEFAULT_ARCHIVE_LIMITS):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_encrypted_members_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x": b"1"})
    content = bytearray(path.read_bytes())
    for header, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(header) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="1 of 1 members are encrypted: x"):
        unpack_all(path, tmp_path / "out")


def test_damaged_archives_are_told(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x": bytes(range(256)) * 100})
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[100] ^= 0xFF
    for i, content in enumerate([whole[:-30], whole[: len(whole) // 2], b"", b"<html>404</html>", bytes(flipped)]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.zip: not a zip archive, damaged or cut short"):
            unpack_all(path, tmp_path / str(i))
    with pytest.raises(DataError, match="does not exist"):
        unpack_all(tmp_path / "none.zip", tmp_path / "none")
    with pytest.raises(DataError, match="is a folder; give the zip archive itself"):
        unpack_all(tmp_path, tmp_path / "folder")
