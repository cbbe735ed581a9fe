import dataclasses
import json
import shutil
import statistics
from itertools import product
from pathlib import Path

import pytest
import yaml

from convlora.cli import reproduce as cli
from convlora.data.catalog.get import get_set
from convlora.data.catalog.sets import SETS
from convlora.data.catalog.settings import GetSettings
from convlora.data.findings.checking import check_data
from convlora.data.labels.format import LabelFormat
from convlora.data.readers.listing import read_listing
from convlora.errors import NonFiniteLossError, OutputError
from convlora.files import write_json
from convlora.objectives.metrics import DEFINITIONS
from convlora.reproduction import reproduce as module
from convlora.reproduction.published import PUBLISHED
from convlora.reproduction.reproduce import Listener, changes_of, reproduce
from convlora.reproduction.settings import ReproduceSettings
from convlora.training.folder import RunFolder
from convlora.training.presets import preset
from convlora.training.settings import as_dict, validate
from convlora.training.split import Split
from tests.cli.commands import assert_one_line, convlora, snapshot
from tests.data.catalog.archives import members, write_zip
from tests.training.runs import write_checkpoint

QUICK = ["--max_steps", "2", "--device", "cpu", "--precision", "fp32", "--batch_size", "2"]


@pytest.fixture
def sam_folder(tmp_path):
    write_checkpoint(tmp_path / "sam")
    return tmp_path / "sam"


def arguments(tmp_path, name, *more):
    archive = write_zip(tmp_path / "given.zip", members(name))
    places = ["--archive", archive, "--data", tmp_path / "data", "--output", tmp_path / "out"]
    return ["reproduce", name, "--model", tmp_path / "sam", *places, *QUICK, *more]


@pytest.mark.parametrize(("name", "methods"), [("polyp", ["conv-lora"]), ("trans10k", ["lora", "conv-lora"])])
def test_one_command_leads_from_nothing_to_the_table(capsys, tmp_path, sam_folder, name, methods):
    outcome = convlora(capsys, *arguments(tmp_path, name, "--seeds", "0", "--methods", ",".join(methods)))
    assert (outcome.code, outcome.errors) == (0, [])
    published = PUBLISHED[name]
    keys = product([test.name for test in SETS[name].tests], methods, published.metrics)
    lines = json.loads((tmp_path / "out" / "results.json").read_text())["lines"]
    assert [(line["test_set"], line["method"], line["metric"]) for line in lines] == list(keys)
    for line in lines:
        scored = tmp_path / "out" / f"{line['method']}-seed0" / "scores" / line["test_set"].replace(" ", "-")
        score = json.loads((scored / "metrics.json").read_text())["scores"][line["metric"]]
        factor = 1 if line["metric"].startswith("ber") or line["metric"] == "mae" else 100
        quoted = published.figures.get((line["test_set"], line["metric"]), {}).get(line["method"])
        assert line["mean"] == pytest.approx(factor * score) and line["sd"] is None
        assert line["paper"] == quoted and (line["difference"] is None) == (quoted is None)
        assert (scored / "report.html").is_file()
    table = (tmp_path / "out" / "table.md").read_text()
    assert "quoted second-hand" in table and "THE PAPER'S FIGURES ARE OF SAM ViT-H" in table
    assert "max_steps=2" in table and "THE PAPER'S FIGURES ARE OF SAM ViT-H" in outcome.out
    assert all(f"{metric}: {DEFINITIONS[metric]}" in table for metric in published.metrics)
    made = yaml.safe_load((tmp_path / "out" / "conv-lora-seed0" / "config.yaml").read_text())
    assert made["loss"] == preset(name, images="x", output="y").loss and made["resize"] == "square"
    for test in SETS[name].tests:  # each scored on its own images
        scored = tmp_path / "out" / "conv-lora-seed0" / "scores" / test.name.replace(" ", "-")
        images = [image["name"] for image in json.loads((scored / "metrics.json").read_text())["per_image"]]
        assert images == [sample.name for sample in read_listing(tmp_path / "data" / name / test.csv)]


@pytest.mark.parametrize("name", SETS)
def test_every_set_can_be_trained_on_with_its_preset(tmp_path, name):
    archive = write_zip(tmp_path / "given.zip", members(name))
    data = get_set(GetSettings(name=name, output=str(tmp_path / "data"), archive=str(archive)))
    training = preset(name, images=str(data.listing), output="out")
    validate(training)
    checked = check_data(training)
    assert {split: len(part) for split, part in checked.splits.items() if split != "test"} == {"train": 4, "val": 2}
    assert len(checked.labels.classes) == len(training.classes) and checked.labels.encoding == training.mask_format
    assert all(checked.class_pixels)  # each class is found


def settings_of(tmp_path, **changes):
    archive = write_zip(tmp_path / "given.zip", members("leaf"))
    places = {"archive": str(archive), "data": str(tmp_path / "data"), "output": str(tmp_path / "out")}
    settings = ReproduceSettings(name="leaf", **{**places, "methods": ["decoder"], "seeds": [3, 5], **changes})
    quick = {"max_steps": 2, "device": "cpu", "precision": "fp32", "model": str(tmp_path / "sam")}
    return settings, preset("leaf", images="x", output="y", **quick)


def test_mean_and_deviation_are_over_the_seeds_and_nothing_is_done_twice(tmp_path, sam_folder, monkeypatch):
    settings, training = settings_of(tmp_path)
    made = []
    result = reproduce(settings, training, Listener(announce=made.append))
    assert made == ["decoder, seed 3", "decoder, seed 5"]
    line = result.lines()[1]
    values = [100 * run.scores["Leaf"]["dice_per_image"] for run in result.runs]
    assert line["metric"] == "dice_per_image" and line["by_seed"] == dict(zip((3, 5), values, strict=True))
    assert line["mean"] == pytest.approx(statistics.mean(values))
    assert line["sd"] == pytest.approx(statistics.stdev(values))
    before = snapshot(tmp_path)
    events = []
    again = reproduce(settings, training, Listener(report=events.append, progress=lambda *event: events.append(event)))
    assert again.lines() == result.lines() and events == [] and snapshot(tmp_path) == before
    other = dataclasses.replace(training, learning_rate=0.5)
    with pytest.raises(OutputError, match=r"was made with another learning_rate: 0\.0003, now 0\.5"):
        reproduce(settings, other)
    assert snapshot(tmp_path) == before
    monkeypatch.chdir(tmp_path)  # the same folders by other names
    assert reproduce(dataclasses.replace(settings, output="out", data="data"), training).lines() == result.lines()
    assert snapshot(tmp_path) == before


@pytest.fixture
def pretended(monkeypatch):
    """Runs that are made at once and score their learning rate."""

    def train(settings, report):
        folder = RunFolder(settings.output)
        folder.create(as_dict(settings.anchored()), Split({}, LabelFormat(("no", "yes"))))

    def evaluate(settings, progress):
        rate = RunFolder(settings.run).settings()["learning_rate"]
        write_json(Path(settings.output) / "metrics.json", {"scores": {"dice_per_image": rate}})
        (Path(settings.output) / "report.html").touch()

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "resume", lambda path, report: None)
    monkeypatch.setattr(module, "evaluate", evaluate)


def test_scores_go_with_the_run_that_had_them(tmp_path, pretended):
    settings, training = settings_of(tmp_path, seeds=[0])
    reproduce(settings, training)
    shutil.rmtree(tmp_path / "out" / "decoder-seed0")
    result = reproduce(settings, dataclasses.replace(training, learning_rate=0.5))
    assert result.lines()[1]["metric"] == "dice_per_image" and result.lines()[1]["mean"] == 50


def test_an_interrupted_reproduction_continues(tmp_path, sam_folder):
    settings, training = settings_of(tmp_path, seeds=[0])

    def stop(stage, done, total):
        if stage == "scoring":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(settings, training, Listener(progress=stop))
    weights = tmp_path / "out" / "decoder-seed0" / "adapter" / "adapter_model.safetensors"
    before = weights.stat().st_mtime_ns
    assert not (tmp_path / "out" / "table.md").exists()
    assert reproduce(settings, training).lines()[0]["mean"] is not None
    assert weights.stat().st_mtime_ns == before


def test_a_run_that_fails_is_shown_as_failed(tmp_path, pretended, monkeypatch):
    train = module.train

    def fails_once(settings, report):
        if settings.seed == 3:
            raise NonFiniteLossError("the loss became\ninfinite")
        return train(settings, report)

    monkeypatch.setattr(module, "train", fails_once)
    settings, training = settings_of(tmp_path)
    result = reproduce(settings, training)
    line = result.lines()[1]
    assert list(line["by_seed"]) == [5] and (line["runs"], line["failed"]) == (2, 1)
    table = (tmp_path / "out" / "table.md").read_text()
    assert "1 of 2, 1 failed" in table and "- decoder, seed 3: failed: the loss became infinite" in table


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "lora"], "--method is set by convlora reproduce; set --methods instead"),
        (["--images=x.csv"], "--images is set by convlora reproduce; set --data instead"),
        (["--methods", "lora,lora", "--seeds", "1,1"], "methods='lora,lora' must be some of .*; seeds=.* different"),
        (["--epoch", "2"], "unknown setting 'epoch'.*Did you mean 'epochs'"),
        (["--epochs", "0"], "epochs=0 must be at least 1"),
        (["--sha256", "x"], "sha256='x' must be 64 hexadecimal digits"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_made(capsys, tmp_path, flags, message):
    assert_one_line(convlora(capsys, *arguments(tmp_path, "leaf", *flags)), 2, message)
    assert {path.name for path in tmp_path.iterdir()} == {"given.zip"}


@pytest.mark.parametrize(
    ("key", "value", "instead"),
    [
        ("method", "lora", "methods"),
        ("seed", 5, "seeds"),
        ("masks", "m", "data"),
        ("images", "i", "data"),
        ("output", "o", "output"),
    ],
)
def test_what_a_reproduction_sets_itself_is_not_taken_from_a_file(capsys, tmp_path, key, value, instead):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"epochs": 2, key: value}))
    outcome = convlora(capsys, *arguments(tmp_path, "leaf", "--config", tmp_path / "mine.yaml"))
    assert_one_line(outcome, 2, f"{key} in the file of --config is set by convlora reproduce; set --{instead} instead")
    assert {path.name for path in tmp_path.iterdir()} == {"given.zip", "mine.yaml"}


def test_other_settings_are_taken_from_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("epochs: 2\n")
    settings, _ = settings_of(tmp_path)
    training = cli._training(settings, ["--config", str(tmp_path / "mine.yaml")])
    assert changes_of("leaf", training) == {"epochs": 2}


def test_flags_of_both_kinds_may_stand_in_any_order():
    mine, others = cli._divided(["polyp", "--epochs", "2", "--seeds=1", "--adapter.r=4", "--data", "d", "--lr"])
    assert mine == ["polyp", "--seeds=1", "--data", "d"] and others == ["--epochs", "2", "--adapter.r=4", "--lr"]
