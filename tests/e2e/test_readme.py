"""The README's commands and Python, run as they stand, on a few of the sample crops and with few steps."""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HELA = ROOT / "src" / "convlora" / "assets" / "hela"
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOWNLOADS = ("convert", "data", "reproduce")  # they need files from elsewhere: here only their settings are read


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.S | re.M)


def commands():
    lines = [line for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    return [line[2:].split("#")[0].strip() for line in lines]


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """A folder with `data/`, as the README has it made, but smaller."""
    folder = tmp_path_factory.mktemp("newcomer")
    with (HELA / "samples.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    few = [row for split in ("train", "val", "test") for row in rows if row["split"] == split][::4]
    for row in few:
        for key in ("image", "mask"):
            target = folder / "data" / row[key]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HELA / row[key], target)
    with (folder / "data" / "samples.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=["image", "mask", "split"])
        writer.writeheader()
        writer.writerows(few)
    return folder


def run(arguments, folder):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def test_the_readme_shows_all_commands_and_the_makefile_has_its_targets():
    from convlora.cli.main import COMMANDS

    shown = commands()
    for name in set(COMMANDS) - {"demo"}:
        assert any(command.startswith(f"convlora {name} ") for command in shown), name
    assert all(f"  {name:<15}{text}\n" in README for name, text in COMMANDS.items())
    makefile = (ROOT / "Makefile").read_text()
    targets = {shlex.split(command)[1] for command in shown if command.startswith("make ")}
    assert targets == {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, flags=re.M) for target in targets)


def test_the_readmes_commands_work_in_their_order(newcomer):
    (study,) = blocks("yaml")
    (newcomer / "study.yaml").write_text(study)
    for command in commands():
        if command.startswith("make "):
            continue
        arguments = shlex.split(command)
        if arguments[1] == "train":
            arguments += ["--max_steps", "2", "--batch_size", "2"]
        if arguments[1] == "compare":
            arguments += ["--report_only", "true"]  # every run's settings are checked, and none is made
        if arguments[1] in DOWNLOADS:
            arguments += ["--print_config"]
        output = run(arguments, newcomer)
        if arguments[1] == "check":
            assert "All images and masks are usable." in output
    assert (newcomer / "runs" / "nuclei" / "report.html").is_file()
    assert (newcomer / "runs" / "nuclei" / "analysis.html").is_file()
    table = (newcomer / "runs" / "study" / "table.md").read_text(encoding="utf-8")
    assert "at least 12 runs are still to be made" in table  # 4 methods with 3 rates; then other seeds
    assert len(list((newcomer / "masks").glob("*_overlay.png"))) == 8


def test_the_readmes_python_works(newcomer):
    scripts = blocks("python")
    assert len(scripts) == 2 and len(scripts[0].strip().splitlines()) < 15
    for script in scripts:
        quick = script.replace("epochs=10", "max_steps=2, batch_size=2")
        quick = quick.replace("t13_y376_x812.png", min(p.name for p in (newcomer / "data" / "images").iterdir()))
        run([sys.executable, "-c", quick], newcomer)


def test_the_demo_writes_its_report(tmp_path):
    output = run(["convlora", "demo", "--output", "runs/demo", "--max_steps", "1"], tmp_path)
    assert "untouched SAM" in output and "conv-lora" in output
    page = (tmp_path / "runs" / "demo" / "report.html").read_text(encoding="utf-8")
    assert all(text in page for text in ("before tuning", "decoder", "Experts of conv-lora", "validation"))
