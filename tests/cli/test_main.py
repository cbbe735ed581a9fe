import os
import signal
import subprocess
import sys
import time

import pytest

from convlora import __version__, errors
from convlora.cli import check as check_command
from convlora.cli.main import COMMANDS, main
from tests.cli.commands import assert_one_line, convlora


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "convlora.cli.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_without_a_command_the_help_is_shown_and_the_exit_code_is_2(capsys):
    outcome = convlora(capsys)
    assert outcome.code == 2 and all(f"  {name} " in outcome.out for name in COMMANDS)
    for arguments in (["--help"], ["-h"], ["help"]):
        assert main(arguments) == 0


def test_help_of_a_command_is_a_success(capsys):
    outcome = convlora(capsys, "predict", "--help")
    assert outcome.code == 0 and "--overlays" in outcome.out and outcome.errors == []


def test_help_imports_none_of_the_large_libraries():
    commands = [[name, "--help"] for name in COMMANDS] + [["data", "get", "--help"]]
    code = f"import sys; from convlora.cli.main import main; print({{main(c) for c in {commands}}}, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    codes, *modules = done.stdout.splitlines()[-1].split()
    assert codes == "{0}"
    assert not {"numpy", "PIL", "scipy", "torch", "tqdm", "urllib.request"}.intersection(modules)


def test_version_is_that_of_the_package(capsys):
    assert convlora(capsys, "--version").out == f"convlora {__version__}\n"


def test_an_unknown_command_lists_the_known_ones(capsys):
    assert_one_line(convlora(capsys, "trian"), 2, "unknown command 'trian'", *COMMANDS)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SettingsError, 2),
        (errors.DataError, 3),
        (errors.ImageError, 3),
        (errors.MaskError, 3),
        (errors.PairingError, 3),
        (errors.WeightsError, 4),
        (errors.NonFiniteLossError, 5),
        (errors.OutputError, 6),
    ],
)
def test_every_error_of_ours_is_one_line_with_its_exit_code(capsys, monkeypatch, error, code):
    def run(arguments):
        raise error("first\nsecond")

    monkeypatch.setattr(check_command, "run", run)
    assert_one_line(convlora(capsys, "check"), code, "^convlora: first second$")


def test_an_unexpected_error_is_one_line_that_tells_of_debug(capsys, monkeypatch):
    monkeypatch.setattr(check_command, "run", lambda arguments: {}["missing"])
    outcome = convlora(capsys, "check")
    assert outcome.code == 1
    assert outcome.errors == ["convlora: KeyError: 'missing' (unexpected; --debug shows where)"]


def test_debug_shows_the_traceback_and_keeps_the_exit_code(capsys, tmp_path):
    arguments = ("check", "--images", tmp_path, "--masks", tmp_path / "none")
    assert convlora(capsys, *arguments).code == 3
    outcome = convlora(capsys, *arguments, "--debug")
    assert outcome.code == 3
    assert outcome.errors[0].startswith("Traceback") and any("in recognised" in line for line in outcome.errors)
    assert outcome.errors[-1].startswith("convlora: ")


def test_an_interruption_is_one_line_with_exit_code_130(capsys, monkeypatch):
    def run(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(check_command, "run", run)
    assert_one_line(convlora(capsys, "check"), 130, "^convlora: interrupted.$")


def test_a_reader_that_leaves_causes_no_noise():
    read, write = os.pipe()
    os.close(read)
    process = subprocess.run(
        [sys.executable, "-m", "convlora.cli.main", "--help"], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert process.stderr == "" and process.returncode == 1


def test_output_on_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        process = subprocess.run(
            [sys.executable, "-m", "convlora.cli.main", "--help"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert process.stderr.startswith("convlora: what is printed cannot be written: the disk is full")
    assert process.stderr.count("\n") == 1 and process.returncode == errors.OutputError.exit_code


def test_a_name_that_the_terminal_cannot_show_is_escaped(tmp_path):
    name = "ü\udcff"
    process = start("check", "--images", str(tmp_path / name), "--masks", "m", env={**os.environ, "LC_ALL": "C"})
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3 and "\\udcff does not exist" in err and "Traceback" not in err


def test_predict_stopped_by_ctrl_c_leaves_whole_masks_and_says_how_to_continue(workspace, finished, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(400):
        (images / f"{i:03}.png").symlink_to(workspace / "data" / "images" / "i0.png")
    output = tmp_path / "out"
    process = start("predict", str(finished.path), str(images), "--output", str(output), "--device", "cpu")
    deadline = time.monotonic() + 60
    while not (output.exists() and any(output.glob("*.png"))) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted. Continue with the same command and --skip_existing." in err and "Traceback" not in err
    written = list(output.iterdir())
    assert 0 < len(written) < 400 and all(path.name[0] != "." for path in written)
