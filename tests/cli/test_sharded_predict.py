import os
import re
import subprocess
import sys

import pytest

from tests.cli.commands import assert_one_line, convlora

LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def predict(finished, images, output, *more, processes=1, environment=None):
    command = [sys.executable, *(LAUNCHER if processes > 1 else [])]
    command += ["-m", "convlora.cli.main", "predict", str(finished.path), str(images), "--output", str(output), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


@pytest.fixture
def one_process(workspace, finished, tmp_path):
    done = predict(finished, workspace / "data" / "images", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}


def test_two_processes_of_torchrun_write_the_masks_of_one_each_once(workspace, finished, tmp_path, one_process):
    done = predict(finished, workspace / "data" / "images", tmp_path / "two", processes=2)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()} == one_process
    assert done.stdout == f"5 masks in {tmp_path / 'two'}, the share of the first of 2 processes\n"
    shown = re.findall(r"(\d+)/(\d+) \[", done.stderr)
    assert shown and all(total == "5" for _, total in shown)  # one bar, of the first process's share
    again = predict(finished, workspace / "data" / "images", tmp_path / "two", processes=2)
    assert again.returncode != 0 and "is not empty" in again.stderr


def test_processes_started_one_after_the_other_give_the_masks_of_one(workspace, finished, tmp_path, one_process):
    for rank in (1, 0):  # the first one last, which finds the other's masks there
        place = {"RANK": str(rank), "WORLD_SIZE": "2"}
        done = predict(finished, workspace / "data" / "images", tmp_path / "out", environment=place)
        assert done.returncode == 0, done.stderr
        if rank == 1:
            assert done.stdout == "" and "predicting" not in done.stderr
            assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"i{i}.png" for i in (1, 3, 5, 7)]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == one_process


def test_a_broken_image_of_one_process_does_not_end_the_other(workspace, finished, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(120):
        (images / f"{i:03}.png").symlink_to(workspace / "data" / "images" / "i0.png")
    for i in range(1, 120, 2):  # the second process has nothing else, and is done at once
        (images / f"{i:03}.png").unlink()
        (images / f"{i:03}.png").write_bytes(b"")
    done = predict(finished, images, tmp_path / "out", processes=2)
    assert done.returncode != 0 and "60 of 60 images were left out" in done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 60


@pytest.mark.parametrize(
    ("place", "message"),
    [({"RANK": "x", "WORLD_SIZE": "2"}, "RANK='x'"), ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 with WORLD_SIZE=2")],
)
def test_a_place_that_cannot_be_is_refused(capsys, finished, tmp_path, monkeypatch, place, message):
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    outcome = convlora(capsys, "predict", finished.path, tmp_path, "--output", tmp_path / "out")
    assert_one_line(outcome, 2, message, "from 0 to WORLD_SIZE - 1")
