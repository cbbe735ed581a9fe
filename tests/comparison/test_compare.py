"""Whole studies, with processes of their own; each takes seconds to start, so these are few and small."""

import signal
import subprocess
import sys
import time

import pytest
import yaml

from convlora.comparison.engines import LocalEngine, _gpus
from convlora.comparison.records import Record
from convlora.comparison.tasks import DONE, Task
from convlora.training.folder import RunFolder
from tests.cli.commands import convlora
from tests.evaluation.pages import Page
from tests.training.runs import quick_settings


def write_study(workspace, folder, **changes):
    values = {
        "output": str(folder / "study"),
        "datasets": {
            "discs": {
                "images": str(workspace / "data/images"),
                "masks": str(workspace / "data/masks"),
                "val_fraction": 0.2,
                "test_fraction": 0.2,
            }
        },
        "models": [str(workspace / "sam")],
        "methods": ["lora"],
        "learning_rates": [1e-3],
        "seeds": [0],
        "train": {"max_steps": 2, "batch_size": 2, "device": "cpu", "precision": "fp32"},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}, sort_keys=False))
    return path


def test_a_study_with_a_method_that_cannot_work_ends_with_a_table_of_both(workspace, tmp_path, capsys):
    methods = {"lora": {}, "broken": {"method": "decoder", "model": str(tmp_path / "nowhere")}}
    study = write_study(workspace, tmp_path, methods=methods, jobs=2)
    outcome = convlora(capsys, "compare", study)
    assert outcome.code == 0, outcome.errors
    assert outcome.out.count("FAILED: no SAM checkpoint at") == 1 and "[2/2]" in outcome.out
    table = (tmp_path / "study/table.md").read_text(encoding="utf-8")
    lora, broken = [line for line in table.splitlines() if line.startswith(("| lora", "| broken"))]
    assert "1 of 1" in lora and "0 of 1, 1 failed" in broken
    page = Page((tmp_path / "study/index.html").read_text(encoding="utf-8"))
    assert page.text.count("failed: broken, lr0.001-seed0: no SAM checkpoint at") == 1
    again = convlora(capsys, "compare", study)
    assert again.code == 0 and "seed 0:" not in again.out  # no run was made again
    changed = convlora(capsys, "compare", write_study(workspace, tmp_path, train={"max_steps": 3}))
    assert changed.code == 6 and "made with other settings: max_steps was 2 and is now 3" in changed.errors[0]


def test_a_study_killed_in_the_middle_of_a_run_continues_it(workspace, tmp_path, capsys):
    train = {"max_steps": 100, "batch_size": 2, "device": "cpu", "precision": "fp32", "evaluate_every": 20}
    study = write_study(workspace, tmp_path, train=train)
    run = RunFolder(tmp_path / "study/runs/discs/sam/lora/lr0.001-seed0")
    command = [sys.executable, "-m", "convlora.cli.main", "compare", str(study)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: list(run.checkpoints.glob("checkpoint-*")))
        process.send_signal(signal.SIGKILL)
    before = len(run.read_log())
    assert Record.read(run.path) is None
    outcome = convlora(capsys, "compare", study, "--report_only")  # meanwhile the run's own process stops by itself
    assert outcome.code == 0 and "0 of 1" in outcome.out
    outcome = convlora(capsys, "compare", study)
    assert outcome.code == 0, outcome.errors
    steps = [entry["step"] for entry in run.read_log() if "task_loss" in entry]
    assert steps == list(range(1, 101)) and 0 < before < 100 + 5
    assert Record.read(run.path).error is None


def wait_until(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def test_a_run_s_process_stops_when_the_study_is_gone(workspace, tmp_path):
    settings = quick_settings(workspace, tmp_path / "run", method="lora", max_steps=100_000)
    job = LocalEngine(1, []).start(Task(settings, "all"), 0)
    wait_until(lambda: RunFolder(tmp_path / "run").log.exists())
    job.input.close()  # as the system does when the study is killed
    wait_until(lambda: job.process.poll() is not None)
    assert job.process.returncode == 130 and Record.read(tmp_path / "run") is None
    assert list((tmp_path / "run/checkpoints").glob("checkpoint-*"))


def test_submitit_makes_a_run(workspace, tmp_path):
    pytest.importorskip("submitit")
    from convlora.comparison.engines import SubmititEngine

    settings = quick_settings(workspace, tmp_path / "runs/run", method="lora", max_steps=1)
    engine = SubmititEngine(tmp_path / "jobs", {"timeout_min": 5})
    job = engine.start(Task(settings, "nothing"), 0)
    wait_until(lambda: job.poll() is not None)
    assert job.poll() == DONE, job.last_words()
    assert Record.read(tmp_path / "runs/run").error is None


def test_an_unknown_parameter_of_submitit_is_a_settings_error(tmp_path):
    pytest.importorskip("submitit")
    from convlora.comparison.engines import SubmititEngine
    from convlora.errors import SettingsError

    with pytest.raises(SettingsError, match="timeout_hours"):
        SubmititEngine(tmp_path / "jobs", {"timeout_hours": 5})


def test_gpus_are_those_that_may_be_used(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert _gpus() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert _gpus() == []


def test_processes_get_the_gpus_in_turn(monkeypatch):
    started = []
    monkeypatch.setattr("convlora.comparison.engines._Process", lambda task, environment: started.append(environment))
    engine = LocalEngine(3, ["0", "1"])
    for slot in range(3):
        engine.start(None, slot)
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in started] == ["0", "1", "0"]
    assert {environment["OMP_NUM_THREADS"] for environment in started} == {"3"}
