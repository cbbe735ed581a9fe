import dataclasses
import json

import pytest
import torch

from convlora.adapter import ConvLoraLinear
from convlora.adapter.usage import choosing_layers, expert_usage
from convlora.files import read_json_lines
from convlora.training import callbacks
from convlora.training.run import resume, train
from convlora.training.settings import AdapterSettings
from tests.training.runs import Crash, crash_after, quick_settings


def test_every_window_of_every_training_pass_is_counted_and_no_other(finished):
    lines = read_json_lines(finished.routing)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    images = [2, 2, 1] * 2  # of five training images
    for line, count in zip(lines, images, strict=True):
        # 8 × 8 tokens in windows of 3 make 9; the second block is global
        assert {name: sum(sums) for name, sums in line["usage"].items()} == {
            "layers.0.attn.qkv": 9 * count,
            "layers.1.attn.qkv": count,
        }
        assert all(len(sums) == 8 for sums in line["usage"].values())


@pytest.mark.parametrize(
    ("step", "changes", "adapter"),
    [
        (5, {}, {}),
        (3, {"accumulation": 2, "epochs": 3}, {"routing": "random"}),
        (5, {}, {"routing": "soft"}),
    ],
)
def test_a_run_that_continues_within_a_line_writes_the_same_file(
    workspace, tmp_path, monkeypatch, step, changes, adapter
):
    monkeypatch.setattr(callbacks, "_USAGE_LINES", 2)  # a line every third step, a checkpoint every second
    settings = quick_settings(workspace, tmp_path / "whole", adapter=AdapterSettings(**adapter), **changes)
    whole = train(settings)
    broken = dataclasses.replace(settings, output=str(tmp_path / "broken"))
    with pytest.raises(Crash):
        train(broken, crash_after(step))
    again = resume(broken.output)
    assert again.routing.read_text() == whole.routing.read_text()
    lines = read_json_lines(whole.routing)
    steps = [entry["step"] for entry in whole.read_log() if "loss" in entry]
    assert [line["step"] for line in lines] == [3, 6] and steps[-1] == 6
    assert sum(sum(line["usage"]["layers.0.attn.qkv"]) for line in lines) == pytest.approx(
        9 * 5 * settings.epochs, rel=1e-6
    )


def test_a_line_is_written_at_the_last_step_too(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "_USAGE_LINES", 2)
    run = train(quick_settings(workspace, tmp_path / "run", max_steps=5, epochs=4))
    assert [line["step"] for line in read_json_lines(run.routing)] == [3, 5]


@pytest.mark.parametrize("adapter", [{"routing": 2}, {"num_experts": 1}, {"routing": "sum"}])
def test_runs_without_a_choice_have_no_such_file(workspace, tmp_path, adapter):
    run = train(quick_settings(workspace, tmp_path / "run", adapter=AdapterSettings(**adapter), max_steps=1))
    assert not run.routing.exists()


@pytest.mark.parametrize(
    ("metric", "scores", "stops"),
    [
        ("iou", [0.1, 0.9, 0.5, 0.6], True),
        ("iou", [0.9, 0.1, 0.5, 0.95], False),
        ("ber", [0.9, 0.1, 0.5, 0.6], True),
        ("ber", [0.1, 0.9, 0.5, 0.05], False),
        ("s_measure", [], False),
    ],
)
def test_early_stopping_knows_which_scores_are_better(metric, scores, stops):
    log = [{"loss": 1.0}, *({f"eval_{metric}": score, "eval_dice": i} for i, score in enumerate(scores))]
    assert callbacks.EarlyStopping(metric, 2).exhausted(log) is stops


def test_reading_the_counts_does_not_wait_for_every_step(workspace, tmp_path, monkeypatch):
    """Tensors become numbers once a line and once a checkpoint."""
    read = []
    real = torch.Tensor.tolist

    def counted(self):
        if self.shape == (2, 8):
            read.append(1)
        return real(self)

    monkeypatch.setattr(callbacks, "_USAGE_LINES", 2)
    monkeypatch.setattr(torch.Tensor, "tolist", counted)
    train(quick_settings(workspace, tmp_path / "run", evaluate_every=6))
    assert len(read) == 2 + 1


def test_usage_of_a_layer_is_the_count_of_its_choices():
    from peft import get_peft_model

    from convlora import ConvLoraConfig, SamForSemanticSegmentation
    from tests.sam.models import small_sam

    for routing in ("balanced", "random", "soft", "soft-token"):
        base = SamForSemanticSegmentation.from_sam(small_sam())
        model = get_peft_model(base, ConvLoraConfig(num_experts=3, routing=routing)).train()
        layers = choosing_layers(model)
        assert set(layers.values()) == {m for m in model.modules() if isinstance(m, ConvLoraLinear)}
        first = next(iter(layers.values()))
        with pytest.raises(ValueError, match="has not routed"):
            expert_usage(first)
        model(torch.randn(2, 3, 64, 64))
        for layer in layers.values():
            usage, routed = expert_usage(layer), layer.routing["default"]
            assert not usage.requires_grad and usage.sum().item() == pytest.approx(len(routed.index), rel=1e-6)
            if routed.shares is None:
                assert json.loads(json.dumps(usage.tolist())) == [routed.index.tolist().count(i) for i in range(3)]
