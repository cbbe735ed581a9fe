import errno
import json
import os
import stat
from pathlib import Path

import pytest

from convlora import files
from convlora.errors import OutputError
from convlora.files import output_errors, replacing, sha256, whole_folder, write_json, write_text


def fail(number):
    def raising(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return raising


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_replacing_makes_folders_and_leaves_only_the_file(tmp_path):
    with replacing(tmp_path / "a" / "b" / "c.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "a" / "b" / "c.txt").exists()
    assert (tmp_path / "a" / "b" / "c.txt").read_text() == "new"
    assert names(tmp_path / "a" / "b") == ["c.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "c.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["c.txt"]


def test_a_full_disk_at_the_last_moment_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "c.txt"
    path.write_text("old")
    monkeypatch.setattr(files.os, "fsync", fail(errno.ENOSPC))
    with pytest.raises(OutputError, match=rf"cannot write {path}: the disk is full; free some space"):
        write_text(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == ["c.txt"]


def test_a_full_disk_that_safetensors_reports_is_recognised(tmp_path):
    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(OutputError, match="the disk is full"), replacing(tmp_path / "w"):
        raise RuntimeError(text)  # its own exception is no OSError
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EPERM, "permission denied"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.EIO, "reported an error"),
    ],
)
def test_each_refusal_of_the_system_says_what_to_do(tmp_path, monkeypatch, number, remedy):
    monkeypatch.setattr(files.tempfile, "mkstemp", fail(number))
    with pytest.raises(OutputError, match=rf"cannot write .*c\.txt: .*{remedy}"):
        write_text(tmp_path / "c.txt", "new")


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(FileNotFoundError), output_errors(tmp_path):
        (tmp_path / "none").read_text()
    with pytest.raises(ValueError, match="mine"), output_errors(tmp_path):
        raise ValueError("mine")


def test_a_file_or_a_folder_in_the_way_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(OutputError, match="a file, not a folder"):
        write_text(tmp_path / "file" / "c.txt", "new")
    with pytest.raises(OutputError, match="there is a folder of that name"):
        write_text(tmp_path / "folder", "new")
    assert names(tmp_path) == ["file", "folder"]


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(OutputError, match=r"cannot write none/c\.txt: its folder is not there"):
        write_text(Path("none/c.txt"), "new")


def test_a_name_as_long_as_the_file_system_takes_can_be_written(tmp_path):
    for name in ("a" * 255, "ü" * 127, "😀" * 63):
        write_text(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "c.txt", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "c.txt").stat().st_mode) == mode


def test_a_whole_folder_replaces_the_old_one_at_the_end(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("")
    (tmp_path / ".folder.tmp").mkdir()  # of a run that was killed
    (tmp_path / ".folder.tmp" / "torn").write_text("")
    with whole_folder(path) as hidden:
        (hidden / "inner").mkdir()
        (hidden / "inner" / "new").write_text("new")
        assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"] and names(path) == ["inner"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError(errno.ENOSPC, "full")])
def test_an_exception_keeps_the_old_folder(tmp_path, error):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").write_text("")
    expected = OutputError if isinstance(error, OSError) else error
    with pytest.raises(expected), whole_folder(path) as hidden:
        (hidden / "half").write_text("")
        raise error
    assert names(tmp_path) == ["folder"] and names(path) == ["old"]


def test_a_full_disk_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", fail(errno.ENOSPC))
    with pytest.raises(OutputError, match="the disk is full"), whole_folder(tmp_path / "folder") as hidden:
        (hidden / "half").write_text("")
    assert names(tmp_path) == []


def test_json_is_written_readable_or_not_at_all(tmp_path):
    write_json(tmp_path / "a.json", {"ü": [1, 2.5, None]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ü": [1, 2.5, None]}
    for value in (float("nan"), float("inf"), object()):
        with pytest.raises((ValueError, TypeError)):
            write_json(tmp_path / "a.json", value)
    assert names(tmp_path) == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ü": [1, 2.5, None]}


def test_sha256_is_that_of_the_standard_test_vector(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4
