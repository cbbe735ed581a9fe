import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from convlora.adapter import ConvLoraLinear
from convlora.analysis.analyze import analyze
from convlora.analysis.settings import AnalyzeSettings
from convlora.errors import DataError, SettingsError, WeightsError
from convlora.evaluation.routing import chosen_scales
from convlora.inference.predictor import Predictor
from convlora.training.folder import RunFolder
from convlora.training.run import train
from convlora.training.settings import AdapterSettings
from tests.cli.commands import assert_one_line, convlora
from tests.evaluation.pages import Page
from tests.sam.mobile import small_mobile_sam
from tests.training.runs import quick_settings


def read(analysis):
    text = (analysis.folder / "analysis.html").read_text(encoding="utf-8")
    return text, Page(text), json.loads((analysis.folder / "analysis.json").read_text(encoding="utf-8"))


def quick(run, tmp_path, **changes):
    return AnalyzeSettings(run=str(run.path), output=str(tmp_path), device="cpu", precision="fp32", **changes)


@pytest.fixture(scope="module")
def whole(finished, tmp_path_factory):
    counts = []
    settings = quick(finished, tmp_path_factory.mktemp("analysis"))
    analysis = analyze(settings, lambda done, total: counts.append((done, total)))
    return analysis, counts


def test_all_four_parts_are_there_in_pictures_and_numbers(whole, finished):
    analysis, _ = whole
    _, page, numbers = read(analysis)
    assert analysis.notes == numbers["notes"] == []
    assert len(page.all("svg")) == 2 + 1 + 1 + 1  # two test images, usage, attention, probe
    assert [part for part in ("Experts chosen", "over training", "Attention", "probes") if part in page.text]
    assert set(numbers) == {
        "run",
        "convlora",
        "experts",
        "usage",
        "attention_distance",
        "linear_probe",
        "notes",
    }
    assert numbers["usage"]["steps"] == [1, 2, 3, 4, 5, 6]
    for moment in ("before", "after"):
        assert {k: len(v) for k, v in numbers["attention_distance"][moment].items()} == {"0": 2, "1": 2}
        assert list(numbers["linear_probe"][moment]) == ["block 0", "block 1", "embedding"]
    assert (numbers["linear_probe"]["training_images"], numbers["linear_probe"]["test_images"]) == (5, 2)


def test_the_page_needs_nothing_from_elsewhere(whole):
    text, page, _ = read(whole[0])
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, name)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_progress_goes_up_to_the_total(whole):
    _, counts = whole
    done = [done for done, _ in counts]
    assert done == sorted(done) and counts[-1] == (2 + 2 * (2 + 5 + 2),) * 2
    assert {total for _, total in counts} == {counts[-1][1]}


def test_experts_in_the_numbers_are_those_of_a_prediction(whole, finished):
    _, _, numbers = read(whole[0])
    predictor = Predictor.from_folder(finished.path, device="cpu", precision="fp32")
    samples = finished.read_split().samples["test"]
    assert [entry["image"] for entry in numbers["experts"]] == [sample.name for sample in samples]
    for entry, sample in zip(numbers["experts"], samples, strict=True):
        image = np.asarray(Image.open(sample.image))
        for layer, choice in zip(entry["layers"], chosen_scales(predictor, image), strict=True):
            shown = np.array(layer["scales"])
            assert layer["block"] == choice.layer
            np.testing.assert_array_equal(shown, choice.scales[: shown.shape[0], : shown.shape[1]])


def test_chosen_layers_and_numbers_of_images_are_kept_to(finished, tmp_path):
    analysis = analyze(quick(finished, tmp_path, images=1, attention_images=1, probe_images=2, layers=[1], seed=3))
    _, _, numbers = read(analysis)
    assert len(numbers["experts"]) == 1 and [e["block"] for e in numbers["experts"][0]["layers"]] == [1]
    assert numbers["attention_distance"]["images"] == 1
    assert numbers["linear_probe"]["training_images"] == 2
    assert list(numbers["linear_probe"]["before"]) == ["block 1", "embedding"]
    with pytest.raises(SettingsError, match=r"layers=\[2\]: this encoder has 2 blocks; give numbers from 0 to 1\."):
        analyze(quick(finished, tmp_path, layers=[2]))


def test_parts_that_are_not_asked_for_are_left_out(finished, tmp_path):
    _, page, numbers = read(analyze(quick(finished, tmp_path, images=0, attention_images=0, probe_images=0)))
    assert set(numbers) == {"run", "convlora", "usage", "notes"} and len(page.all("svg")) == 1


@pytest.mark.parametrize(
    ("method", "adapter"),
    [
        ("decoder", AdapterSettings()),
        ("full", AdapterSettings()),
        ("vpt", AdapterSettings()),
        ("lst", AdapterSettings()),
        ("conv-lora", AdapterSettings(routing=3)),
        ("conv-lora", AdapterSettings(num_experts=1)),
    ],
)
def test_runs_without_a_choice_of_experts_have_the_other_parts_and_a_note(workspace, tmp_path, method, adapter):
    run = train(quick_settings(workspace, tmp_path / "run", method=method, adapter=adapter, max_steps=2))
    assert not run.routing.exists()
    analysis = analyze(quick(run, tmp_path / "out"))
    _, page, numbers = read(analysis)
    assert "the adapter has no experts to choose among, so none are shown" in analysis.notes
    assert "experts" not in numbers and "usage" not in numbers and len(page.all("svg")) == 2
    distances, probes = numbers["attention_distance"], numbers["linear_probe"]
    # the encoder of these two is frozen, though LST adds a network beside it
    assert (distances["before"] == distances["after"]) == (method in ("decoder", "lst"))
    if method == "decoder":
        assert probes["before"] == probes["after"]


def test_of_mobile_sam_the_use_of_experts_and_a_probe_of_the_embedding_are_shown(workspace, tmp_path):
    small_mobile_sam().save_pretrained(tmp_path / "mobile")
    run = train(quick_settings(workspace, tmp_path / "run", model=str(tmp_path / "mobile"), max_steps=2))
    analysis = analyze(quick(run, tmp_path / "out"))
    _, page, numbers = read(analysis)
    assert [note.partition(",")[0] for note in analysis.notes] == ["the encoder is not SAM's ViT"]
    assert set(numbers) == {"run", "convlora", "usage", "linear_probe", "notes"} and len(page.all("svg")) == 2
    assert len(numbers["usage"]["shares"]) == 5 and list(numbers["linear_probe"]["after"]) == ["embedding"]


def test_a_run_of_before_the_usage_was_logged_says_so(finished, tmp_path):
    run = RunFolder(shutil.copytree(finished.path, tmp_path / "run"))
    run.routing.unlink()
    analysis = analyze(quick(run, tmp_path / "out", images=0, attention_images=0, probe_images=0))
    assert analysis.notes == ["the run has no routing.jsonl, so the use of the experts over training is not known"]


def test_an_adapter_alone_an_unfinished_run_and_missing_images_are_refused(finished, tmp_path):
    with pytest.raises(WeightsError, match=r"is not a run folder: it has no config\.yaml"):
        analyze(AnalyzeSettings(run=str(finished.adapter)))
    run = RunFolder(shutil.copytree(finished.path, tmp_path / "run"))
    split = run.read_split()
    gone = [dataclasses.replace(sample, image=tmp_path / "gone.png") for sample in split.samples["test"]]
    run.write_split(dataclasses.replace(split, samples={**split.samples, "test": gone}))
    with pytest.raises(DataError, match=r"gone\.png"):
        analyze(quick(run, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    shutil.rmtree(run.adapter)
    with pytest.raises(WeightsError, match="is not finished"):
        analyze(quick(run, tmp_path / "out"))


def test_the_command_says_where_the_page_is(capsys, finished, tmp_path):
    few = ("--images", "1", "--attention_images", "0", "--probe_images", "0", "--layers", "0,1")
    outcome = convlora(capsys, "analyze", finished.path, "--output", tmp_path, "--device", "cpu", *few)
    assert outcome.code == 0, outcome.errors
    assert f"written: {tmp_path / 'analysis.html'}, {tmp_path / 'analysis.json'}" in outcome.out
    assert_one_line(convlora(capsys, "analyze", finished.path, "--images", "-1"), 2, "images=-1 must be at least 0")
    assert_one_line(convlora(capsys, "analyze", finished.path, "--layers", "-1"), 2, r"layers=\[-1\] must be numbers")


def test_the_model_is_left_as_it_was(finished, tmp_path, monkeypatch):
    from convlora.analysis import analyze as module

    kept = []
    real = Predictor.from_folder

    def remember(*arguments, **options):
        kept.append(real(*arguments, **options))
        return kept[0]

    monkeypatch.setattr(module.Predictor, "from_folder", remember)
    analyze(quick(finished, tmp_path, images=1, attention_images=1, probe_images=1))
    modules = list(kept[0].model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert not any(module.disable_adapters for module in modules if isinstance(module, ConvLoraLinear))
