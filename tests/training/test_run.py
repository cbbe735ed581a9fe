import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from convlora.data.augmentation.settings import AugmentationSettings
from convlora.data.findings.checking import check_data
from convlora.errors import ConvloraError, NonFiniteLossError, OutputError, SettingsError, WeightsError
from convlora.inference.predictor import Predictor
from convlora.training import build as build_module
from convlora.training import trainer as trainer_module
from convlora.training.events import Started
from convlora.training.folder import RunFolder
from convlora.training.run import resume, train
from convlora.training.settings import as_dict
from convlora.training.split import Split
from tests.training.runs import Crash, crash_after, loss_curve, quick_settings, weights_hash


def new_run(settings):
    """A run folder as it is before the first step."""
    folder = RunFolder(settings.output)
    checked = check_data(settings)
    folder.create(as_dict(settings), Split(checked.splits, checked.labels))
    return folder


def test_a_run_folder_holds_what_the_map_says(finished):
    names = {path.name for path in finished.path.iterdir() if not path.name.startswith(".")}
    assert names == {"config.yaml", "split.json", "adapter", "checkpoints", "log.jsonl", "routing.jsonl"}
    steps = [entry["step"] for entry in finished.read_log() if "loss" in entry]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert [entry["step"] for entry in finished.read_log() if "eval_iou" in entry] == [2, 4, 6]
    assert {"task_loss", "balance_loss", "learning_rate"} <= finished.read_log()[0].keys()
    parts = finished.read_split().samples
    assert {name: len(part) for name, part in parts.items()} == {"train": 5, "val": 2, "test": 2}


def test_training_learns(workspace):
    run = train(quick_settings(workspace, "learns", max_steps=60, learning_rate=3e-3, evaluate_every=20))
    scores = [entry["eval_iou"] for entry in run.read_log() if "eval_iou" in entry]
    assert max(scores) > 0.6


@pytest.mark.parametrize(("metric", "scores"), [("iou", [0.3, 0.9, 0.5]), ("ber", [30.0, 10.0, 20.0])])
def test_the_adapter_is_that_of_the_best_validation(workspace, monkeypatch, metric, scores):
    each = iter(scores)
    monkeypatch.setattr(build_module, "validation_scores", lambda *a, **k: {metric: next(each)})
    run = train(quick_settings(workspace, f"best_{metric}", keep_checkpoints=1, metric=metric))
    assert {path.name for path in run.checkpoints.iterdir()} == {"checkpoint-4", "checkpoint-6"}
    best = run.checkpoints / "checkpoint-4" / "adapter" / "adapter_model.safetensors"
    assert best.read_bytes() == (run.adapter / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("metric", ["s_measure", "ber_per_image"])
def test_a_score_of_two_classes_picks_the_checkpoint(workspace, metric):
    settings = quick_settings(workspace, f"picked_{metric}", metric=metric, learning_rate=1e-2)
    with pytest.raises(Crash):
        train(settings, crash_after(5))
    run = resume(settings.output)
    scores = {entry["step"]: entry[f"eval_{metric}"] for entry in run.read_log() if f"eval_{metric}" in entry}
    assert list(scores) == [2, 4, 6] and len(set(scores.values())) > 1
    step = (max if metric == "s_measure" else min)(scores, key=scores.get)
    kept = run.checkpoints / f"checkpoint-{step}" / "adapter" / "adapter_model.safetensors"
    assert kept.read_bytes() == (run.adapter / "adapter_model.safetensors").read_bytes()


def test_a_score_of_two_classes_is_refused_for_masks_of_three(workspace, tmp_path):
    from tests.training.runs import write_data

    write_data(tmp_path / "data", classes=3)
    (tmp_path / "sam").symlink_to(workspace / "sam")
    with pytest.raises(SettingsError, match="metric='ber' is defined for two classes, and there are 3; use iou"):
        train(quick_settings(tmp_path, metric="ber"))
    assert not (tmp_path / "run").exists()


def test_early_stopping_ends_the_run_and_survives_a_crash_after_it(workspace, monkeypatch):
    from convlora.training import run as run_module

    monkeypatch.setattr(build_module, "validation_scores", lambda *a, **k: {"iou": 0.5})
    settings = quick_settings(workspace, "early", max_steps=20, early_stopping=2)
    export = run_module._export_best
    monkeypatch.setattr(run_module, "_export_best", lambda *a: (_ for _ in ()).throw(Crash))
    with pytest.raises(Crash):
        train(settings)
    monkeypatch.setattr(run_module, "_export_best", export)
    run = resume(settings.output)
    assert max(entry["step"] for entry in run.read_log()) == 6
    assert run.adapter.is_dir()


@pytest.mark.parametrize(
    ("name", "step", "changes"),
    [
        ("before_the_first_checkpoint", 1, {}),
        ("mid_epoch", 3, {}),
        ("at_an_epochs_end", 5, {"evaluate_every": 3}),
        ("accumulating", 4, {"accumulation": 2, "epochs": 4}),
        ("with_workers", 5, {"workers": 2}),
        ("in_bf16", 5, {"precision": "bf16"}),
        ("with_a_prefix_cache", 5, {"method": "decoder", "augmentation": AugmentationSettings(views=2)}),
        ("learned_routing_with_dropout", 5, {"adapter.routing": "learned", "adapter.lora_dropout": 0.2}),
    ],
)
def test_resume_after_a_crash_reproduces_weights_and_loss_curve(workspace, name, step, changes):
    import dataclasses

    nested = {key.partition(".")[2]: changes.pop(key) for key in list(changes) if "." in key}
    whole, broken = (quick_settings(workspace, f"{name}_{kind}", **changes) for kind in ("whole", "broken"))
    if nested:
        whole, broken = (
            dataclasses.replace(s, adapter=dataclasses.replace(s.adapter, **nested)) for s in (whole, broken)
        )
    want = train(whole)
    with pytest.raises(Crash):
        train(broken, crash_after(step))
    first = []
    got = resume(broken.output, lambda event: first.append(event) if isinstance(event, Started) else None)
    every = broken.evaluate_every
    assert first[0].first_step == (step - 1) // every * every
    assert weights_hash(got) == weights_hash(want)
    assert loss_curve(got) == loss_curve(want)


def test_a_damaged_checkpoint_is_ignored(workspace, finished):
    settings = quick_settings(workspace, "damaged")
    with pytest.raises(Crash):
        train(settings, crash_after(5))
    newest = RunFolder(settings.output).checkpoints / "checkpoint-4" / "optimizer.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    (RunFolder(settings.output).checkpoints / ".checkpoint-6.tmp").mkdir()
    run = resume(settings.output)
    assert weights_hash(run) == weights_hash(finished)


def test_resuming_a_finished_run_changes_nothing(finished):
    before = weights_hash(finished), loss_curve(finished)
    assert resume(finished.path).path == finished.path
    assert (weights_hash(finished), loss_curve(finished)) == before


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_images(workspace, monkeypatch):
    settings = quick_settings(workspace, "nan")
    real = trainer_module.SegmentationTrainer.compute_loss
    weights = {}

    def poisoned(self, model, inputs, **kwargs):
        if self.state.global_step == 3:
            inputs["pixel_values"][0, 0, 0, 0] = float("nan")
            weights.update(
                {n: p.detach().clone() for n, p in model.named_parameters()}, names=inputs["names"], model=model
            )
        return real(self, model, inputs, **kwargs)

    monkeypatch.setattr(trainer_module.SegmentationTrainer, "compute_loss", poisoned)
    with pytest.raises(NonFiniteLossError, match="stopped at step 4: loss nan") as caught:
        train(settings)
    names = weights.pop("names")
    model = weights.pop("model")
    assert all(name in str(caught.value) for name in names)
    assert all(torch.equal(p, weights[n]) for n, p in model.named_parameters())
    assert RunFolder(settings.output).read_log()[-1] == {"step": 3, "error": str(caught.value)}


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change(workspace, monkeypatch):
    settings = quick_settings(workspace, "nan_gradient")
    seen = {}

    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    real = trainer_module.SegmentationTrainer.compute_loss

    def poisoned(self, model, inputs, **kwargs):
        seen.update({n: p.detach().clone() for n, p in model.named_parameters()})
        seen["model"] = model
        return Poison.apply(real(self, model, inputs, **kwargs))

    monkeypatch.setattr(trainer_module.SegmentationTrainer, "compute_loss", poisoned)
    with pytest.raises(NonFiniteLossError, match="step 1: a gradient is not finite"):
        train(settings)
    model = seen.pop("model")
    assert all(torch.equal(p, seen[n]) for n, p in model.named_parameters())


def test_an_output_folder_in_use_or_with_files_is_refused(workspace, finished, tmp_path):
    with pytest.raises(OutputError, match=r"holds a run already.*convlora resume"):
        train(quick_settings(workspace, "finished"))
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"is not empty \(it holds note\.txt\)"):
        train(quick_settings(workspace, output=tmp_path))
    assert (tmp_path / "note.txt").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "/nowhere"},
        {"masks": "/nowhere"},
        {"method": "x"},
        {"precision": "fp16"},
        {"classes": ["a", "b", "c"], "loss": "structure"},
    ],
)
def test_a_run_that_cannot_start_leaves_no_folder(workspace, changes):
    settings = quick_settings(workspace, "never", **changes)
    with pytest.raises(ConvloraError):
        train(settings)
    assert not RunFolder(settings.output).path.exists()


def test_a_second_process_is_kept_out_of_a_run(workspace):
    settings = quick_settings(workspace, "locked")
    with new_run(settings).locked():
        output, _ = start(settings, "resume").communicate(timeout=120)
    assert "is in use by another run" in output and "Traceback" not in output


def test_a_folder_that_is_no_run_and_a_changed_config_are_refused(workspace, tmp_path):
    with pytest.raises(WeightsError, match=r"has no config\.yaml"):
        resume(tmp_path)
    settings = quick_settings(workspace, "changed")
    run = new_run(settings)
    values = yaml.safe_load(run.config.read_text())
    run.config.write_text(yaml.safe_dump({**values, "learning_rat": 1}))
    with pytest.raises(Exception, match=r"config\.yaml: unknown setting 'learning_rat'\. Did you mean 'learning_rate'"):
        resume(settings.output)


def test_three_classes_train_and_predict(workspace, tmp_path):
    from tests.training.runs import write_data

    write_data(tmp_path / "data", classes=3)
    (tmp_path / "sam").symlink_to(workspace / "sam")
    run = train(quick_settings(tmp_path, classes=["background", "leaf", "stem"], max_steps=2))
    predictor = Predictor.from_folder(run.path)
    assert predictor.id2label == {0: "background", 1: "leaf", 2: "stem"}
    assert predictor.probabilities(torch.zeros(30, 50, 3, dtype=torch.uint8).numpy()).shape == (3, 30, 50)


def test_validation_images_without_a_valid_pixel_leave_no_best_checkpoint_but_an_adapter(workspace, monkeypatch):
    monkeypatch.setattr(build_module, "validation_scores", lambda *a, **k: {"iou": float("nan")})
    run = train(quick_settings(workspace, "undefined", max_steps=4))
    last = run.checkpoints / "checkpoint-4" / "adapter" / "adapter_model.safetensors"
    assert last.read_bytes() == (run.adapter / "adapter_model.safetensors").read_bytes()


def test_several_gpus_in_one_process_are_not_data_parallel(workspace, monkeypatch):
    monkeypatch.setattr(build_module.TrainingArguments, "n_gpu", 4)
    settings = quick_settings(workspace, "gpus")
    arguments = build_module.training_arguments(RunFolder(settings.output), settings, 5, validated=True)
    assert arguments._n_gpu == 1


def test_low_precision_and_checkpointing_train(workspace):
    run = train(quick_settings(workspace, "bf16", precision="bf16", gradient_checkpointing=True, max_steps=2))
    assert run.adapter.is_dir()


def test_losses_and_scores_reach_tensorboard(workspace):
    run = train(quick_settings(workspace, "tensorboard", max_steps=2, report_to=["tensorboard"]))
    (events,) = (run.path / "tensorboard").rglob("events.out.tfevents*")
    text = events.read_bytes()
    assert b"train/task_loss" in text and b"eval/iou" in text


def start(settings, command="train"):
    """The command line in a process of its own."""
    if command == "train":
        config = RunFolder(settings.output).path.with_suffix(".yaml")
        config.write_text(yaml.safe_dump(as_dict(settings)))
        arguments = ["train", "--config", str(config)]
    else:
        arguments = ["resume", settings.output]
    return subprocess.Popen(
        [sys.executable, "-m", "convlora.cli.main", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )


def wait_for_step(settings, step, process):
    deadline = time.monotonic() + 120
    log = RunFolder(settings.output).log
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and f'"step": {step}' in log.read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached: {process.communicate()[0]}")


def test_resume_after_sigkill_reproduces_the_loss_curve(workspace):
    settings = quick_settings(workspace, "killed", epochs=4)
    want = train(quick_settings(workspace, "killed_whole", epochs=4))
    for command, step in (("train", 3), ("resume", 8)):
        process = start(settings, command)
        wait_for_step(settings, step, process)
        process.kill()
        process.wait()
    got = resume(settings.output)
    assert weights_hash(got) == weights_hash(want)
    assert loss_curve(got) == loss_curve(want)


def test_ctrl_c_saves_and_says_how_to_resume(workspace, finished):
    settings = quick_settings(workspace, "interrupted")
    process = start(settings)
    wait_for_step(settings, 1, process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert re.search(rf"stopped after step \d of 6\. Continue with: convlora resume {settings.output}", output)
    assert "Traceback" not in output
    assert list(RunFolder(settings.output).checkpoints.glob("checkpoint-*"))
    run = resume(settings.output)
    assert weights_hash(run) == weights_hash(finished)
    assert loss_curve(run) == loss_curve(finished)


@pytest.mark.soak
def test_forty_kills_at_random_moments_never_lose_a_run(workspace):
    import random

    rng = random.Random(0)
    want = train(quick_settings(workspace, "soak_whole", epochs=4))
    for i in range(10):
        settings = quick_settings(workspace, f"soak_{i}", epochs=4)
        command = "train"
        for _ in range(4):
            process = start(settings, command)
            time.sleep(rng.uniform(2, 9))
            process.kill()
            process.wait()
            if RunFolder(settings.output).config.is_file():
                command = "resume"
        got = resume(settings.output) if command == "resume" else train(settings)
        assert weights_hash(got) == weights_hash(want)
        assert loss_curve(got) == loss_curve(want)
