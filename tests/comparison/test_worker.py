import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from convlora.comparison import worker
from convlora.comparison.process import perform
from convlora.comparison.records import Record, record_path
from convlora.comparison.tasks import BUSY, DONE, MASKS, Task
from convlora.errors import OutputError
from convlora.evaluation.evaluate import evaluate
from convlora.evaluation.settings import EvaluateSettings
from convlora.objectives.metrics import confusion_matrix, summarize
from convlora.training.events import Progress, Started
from convlora.training.folder import RunFolder
from convlora.training.settings import TrainSettings
from tests.training.runs import loss_curve, quick_settings


def task_of(workspace, name, keep="adapters", **changes):
    return Task(quick_settings(workspace, f"{name}/run", **{"method": "lora", "max_steps": 4, **changes}), keep)


@pytest.fixture(scope="module")
def done(workspace):
    task = task_of(workspace, "done")
    assert perform(task) == DONE
    return task, Record.read(task.folder)


def test_a_run_s_record_holds_its_scores_as_evaluate_gives_them(done):
    task, record = done
    found = evaluate(EvaluateSettings(run=str(task.folder), precision="fp32", device="cpu", batch_size=2)).result
    assert record.error is None
    assert record.scores == found.as_json()["scores"]
    assert record.images == [image.name for image in found.scores.images]
    assert summarize(record.matrices)["iou"] == record.scores["iou"]
    logged = [entry["eval_iou"] for entry in RunFolder(task.folder).read_log() if "eval_iou" in entry]
    assert record.validation == max(logged) and len(logged) == 2
    assert record.adapter_bytes == (task.folder / "adapter/adapter_model.safetensors").stat().st_size


def test_the_best_error_rate_of_a_run_is_its_least(workspace):
    task = task_of(workspace, "rated", metric="ber", learning_rate=1e-2)
    perform(task)
    logged = [entry["eval_ber"] for entry in RunFolder(task.folder).read_log() if "eval_ber" in entry]
    assert Record.read(task.folder).validation == min(logged) < max(logged)


def test_a_record_says_what_the_run_took(done):
    _, record = done
    assert 0 < record.seconds < 60 and 1e8 < record.peak_memory < 1e10
    assert record.trainable > 1000 and record.device.startswith("cpu") and record.settings["max_steps"] == 4


def test_the_predicted_masks_are_those_that_were_scored(done):
    task, record = done
    samples = RunFolder(task.folder).read_split().samples["test"]
    assert [sample.name for sample in samples] == record.images
    for index, sample in enumerate(samples):
        prediction = np.asarray(Image.open(task.folder / MASKS / f"{index}.png"))
        truth = np.asarray(Image.open(sample.mask))
        assert np.array_equal(confusion_matrix(prediction, truth, 2), record.matrices[index])


def test_checkpoints_go_and_the_adapter_stays(done):
    task, _ = done
    assert not (task.folder / "checkpoints").exists() and (task.folder / "adapter").is_dir()


def test_a_finished_run_is_not_made_again(done):
    task, _ = done
    before = record_path(task.folder).read_bytes()
    assert perform(task) == DONE
    assert record_path(task.folder).read_bytes() == before


def test_only_what_shall_be_kept_is_kept(workspace):
    nothing, everything = (task_of(workspace, name, name, max_steps=1) for name in ("nothing", "all"))
    perform(nothing)
    perform(everything)
    assert not (nothing.folder / "adapter").exists() and (nothing.folder / MASKS).is_dir()
    assert (everything.folder / "checkpoints").is_dir() and (everything.folder / "adapter").is_dir()


def test_an_interrupted_run_leaves_no_record_and_continues_as_if_nothing_had_been(workspace, done, monkeypatch):
    task = task_of(workspace, "worker-interrupted")
    started = []
    call = worker._Effort.__call__

    def interrupt(self, event):
        call(self, event)
        if isinstance(event, Started):
            started.append(event.first_step)
        if isinstance(event, Progress) and event.loss is not None and event.step == 3 and len(started) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(worker._Effort, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        perform(task)
    assert Record.read(task.folder) is None
    first = json.loads((task.folder / "effort.json").read_text())["seconds"]
    assert perform(task) == DONE
    assert started == [0, 2]  # evaluate_every=2
    record = Record.read(task.folder)
    assert record.seconds > first > 0
    assert record.confusions == done[1].confusions
    assert loss_curve(RunFolder(task.folder)) == loss_curve(RunFolder(done[0].folder))


def started(first_step):
    return Started(None, 7, 7, "fp32", None, first_step, 4, "iou", None)


@pytest.fixture
def stretch(tmp_path, monkeypatch):
    """A function that works a while on a run: from a step on, for so many seconds, until it is done or stopped."""
    clock = [0.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: clock[0])
    task = Task(TrainSettings(images="i", output=str(tmp_path / "run"), device="cpu"), "all")

    def work(first_step, seconds, outcome):
        def begin(*arguments):
            arguments[-1](started(first_step))
            clock[0] += seconds
            raise outcome

        monkeypatch.setattr(worker, "train", begin)
        with contextlib.suppress(KeyboardInterrupt):
            worker.make(task)
        return json.loads((task.folder / "effort.json").read_text())["seconds"]

    task.folder.mkdir()
    return work


def test_the_time_before_an_interruption_counts_if_a_checkpoint_was_saved(stretch):
    assert stretch(0, 100, KeyboardInterrupt()) == 100
    assert stretch(3, 20, KeyboardInterrupt()) == 120  # continued at step 3
    assert stretch(0, 7, KeyboardInterrupt()) == 7  # made anew: nothing of before is left


@pytest.mark.parametrize("text", ["[]", "{", "3", '{"seconds": null, "peak_memory": 1, "trainable": 1}'])
def test_a_damaged_note_of_the_effort_counts_as_none(tmp_path, text):
    (tmp_path / "effort.json").write_text(text)
    effort = worker._Effort(RunFolder(tmp_path), TrainSettings(images="i", output=str(tmp_path), device="cpu"))
    assert effort.known == {"seconds": 0.0, "peak_memory": 0.0, "trainable": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "/nowhere/sam"}, "no SAM checkpoint at '/nowhere/sam'"),
        ({"learning_rate": 1e30}, "is not finite. The weights were left as they were"),
        ({"test_fraction": 0.0}, "no images are set aside as test"),
    ],
)
def test_a_run_that_fails_is_recorded_with_one_line(workspace, changes, message):
    task = task_of(workspace, f"failed-{next(iter(changes))}", **changes)
    assert perform(task) == DONE
    record = Record.read(task.folder)
    assert message in record.error and "\n" not in record.error and record.confusions == []


def test_an_error_that_nobody_foresaw_is_recorded_with_its_kind(workspace, monkeypatch):
    def explode(settings, report):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(worker, "train", explode)
    task = task_of(workspace, "unforeseen")
    perform(task)
    assert Record.read(task.folder).error == "RuntimeError: out of memory"


def test_a_full_disk_is_no_fault_of_the_run(workspace, monkeypatch):
    def refuse(settings, report):
        raise OutputError("the disk is full")

    monkeypatch.setattr(worker, "train", refuse)
    task = task_of(workspace, "full")
    with pytest.raises(OutputError):
        perform(task)
    assert Record.read(task.folder) is None


@contextlib.contextmanager
def claimed_by_another_process(folder):
    folder.parent.mkdir(parents=True, exist_ok=True)
    code = (
        "import fcntl, sys\nstream = open(sys.argv[1], 'w')\nfcntl.lockf(stream, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\nsys.stdin.read()"
    )
    path = folder.with_name(f".{folder.name}.lock")
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "locked\n"
        yield
        process.stdin.close()


def test_a_run_that_another_process_makes_is_left_alone(workspace):
    task = task_of(workspace, "claimed")
    with claimed_by_another_process(task.folder):
        assert perform(task) == BUSY
    assert not task.folder.exists()


def test_a_task_survives_its_way_to_the_process(workspace):
    task = task_of(workspace, "sent", classes=["a", "ß\n"])
    text = task.to_json()  # what the settings leave to defaults is written out
    assert "\n" not in text and Task.from_json(text).to_json() == text
