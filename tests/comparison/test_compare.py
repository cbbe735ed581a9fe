"""Whole studies, with processes of their own; each takes seconds to start, so these are few and small."""

import dataclasses
import signal
import subprocess
import sys
import time

import pytest
import yaml

from convlora.comparison.claims import claimed, is_free
from convlora.comparison.compare import compare
from convlora.comparison.engines import LocalEngine, _gpus
from convlora.comparison.records import Record, record_path
from convlora.comparison.settings import CompareSettings
from convlora.comparison.study import Study
from convlora.comparison.tasks import BUSY, Task
from convlora.errors import PairingError
from convlora.training.folder import RunFolder
from tests.cli.commands import assert_one_line, convlora
from tests.comparison.studies import study_settings, write_failure
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


def test_a_study_killed_in_the_middle_of_a_run_continues_it_and_one_failed_run_does_not_stop_it(
    workspace, tmp_path, capsys
):
    train = {"max_steps": 60, "batch_size": 2, "device": "cpu", "precision": "fp32", "evaluate_every": 20}
    methods = {"lora": {}, "broken": {"method": "decoder", "model": str(tmp_path / "nowhere")}}
    study = write_study(workspace, tmp_path, train=train, methods=methods)
    run = RunFolder(tmp_path / "study/runs/discs/sam/lora/lr0.001-seed0")
    command = [sys.executable, "-m", "convlora.cli.main", "compare", str(study)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: list(run.checkpoints.glob("checkpoint-*")))
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: is_free(run.path))  # the run's own process saw that the study is gone, and stopped by itself
    before = len([entry for entry in run.read_log() if "task_loss" in entry])
    assert 20 <= before < 60 and Record.read(run.path) is None
    assert (run.checkpoints / f"checkpoint-{before}").is_dir()
    outcome = convlora(capsys, "compare", study, "--report_only")
    assert outcome.code == 0 and outcome.out.count("0 of 1") == 2

    outcome = convlora(capsys, "compare", study, "--jobs", "2")
    assert outcome.code == 0, outcome.errors
    assert outcome.out.count("FAILED: no SAM checkpoint at") == 1 and "[2/2]" in outcome.out
    steps = [entry["step"] for entry in run.read_log() if "task_loss" in entry]
    assert steps == list(range(1, 61)) and Record.read(run.path).error is None
    table = (tmp_path / "study/table.md").read_text(encoding="utf-8")
    lora, broken = [line for line in table.splitlines() if line.startswith(("| lora", "| broken"))]
    assert "1 of 1" in lora and "0 of 1, 1 failed" in broken
    page = Page((tmp_path / "study/index.html").read_text(encoding="utf-8"))
    assert page.text.count("failed: broken, lr0.001-seed0: no SAM checkpoint at") == 1

    again = convlora(capsys, "compare", study)
    assert again.code == 0 and "seed 0:" not in again.out  # no run was made again
    changed = convlora(capsys, "compare", write_study(workspace, tmp_path, train={**train, "max_steps": 3}))
    assert changed.code == 6 and "made with other settings: max_steps was 60 and is now 3" in changed.errors[0]


def wait_until(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def test_a_mistyped_path_of_the_data_is_an_error_before_any_run(tmp_path):
    settings = study_settings(tmp_path)
    with pytest.raises(PairingError, match=r"^discs: .*data/images"):
        compare(settings, no_event)
    assert not (tmp_path / "study").exists()


def test_a_report_leaves_the_failed_runs_as_they_are(tmp_path):
    settings = study_settings(tmp_path, learning_rates=[1e-3], seeds=[0])
    runs = Study(settings).missing()
    for run in runs:
        write_failure(run)
    for changes in ({"retry_failed": True}, {"train": {"max_steps": 3}}):
        ((_, lines),) = compare(dataclasses.replace(settings, report_only=True, **changes), no_event)
        assert all(record_path(run.folder).exists() for run in runs) and all(line.failed for line in lines)


def test_a_study_whose_runs_all_failed_ends_with_an_error(workspace, tmp_path, capsys):
    path = write_study(workspace, tmp_path)
    for run in Study(CompareSettings(**yaml.safe_load(path.read_text()))).missing():
        write_failure(run)
    outcome = convlora(capsys, "compare", path)
    assert_one_line(outcome, 1, "every method failed")
    assert "--retry_failed makes them again" in outcome.out and (tmp_path / "study/table.md").is_file()


def no_event(event):
    raise AssertionError("no run may be started")


def test_the_process_of_a_run_that_another_one_makes_ends_without_torch(workspace, tmp_path):
    task = Task(quick_settings(workspace, tmp_path / "run"), "all")
    code = "import sys; from convlora.comparison.process import main; print(main(), 'torch' in sys.modules)"
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with claimed(task.folder), subprocess.Popen([sys.executable, "-c", code], text=True, **pipe) as process:
        process.stdin.write(f"{task.to_json()}\n")
        process.stdin.flush()  # and not closed, at which the process would stop
        assert process.stdout.read().split() == [str(BUSY), "False"]


def test_submitit_performs_a_task_in_a_process_of_its_own(workspace, tmp_path):
    pytest.importorskip("submitit")
    from convlora.comparison.engines import SubmititEngine

    settings = quick_settings(workspace, tmp_path / "runs/run", method="lora", max_steps=1)
    engine = SubmititEngine(tmp_path / "jobs", {"timeout_min": 5})
    with claimed(tmp_path / "runs/run"):  # the quickest of its answers: making runs is tested elsewhere
        job = engine.start(Task(settings, "nothing"), 0)
        wait_until(lambda: job.poll() is not None)
    assert job.poll() == BUSY, job.last_words()


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
