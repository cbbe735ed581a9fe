import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

from convlora.data.dataset import SegmentationDataset
from convlora.data.labels.format import LabelFormat
from convlora.data.readers.pairing import Sample
from convlora.data.settings import ImageLimits
from convlora.evaluation.report import write_report
from convlora.evaluation.results import describe_run
from convlora.evaluation.scoring import score
from convlora.inference.predictor import Predictor
from convlora.training.run import train
from tests.evaluation.pages import Page
from tests.training.runs import quick_settings, write_data

NAMESPACES = ("http://www.w3.org/", "http://purl.org/dc/", "http://creativecommons.org/ns#", "https://matplotlib.org")


def result_of(run, dataset, labels, **changes):
    predictor = Predictor.from_folder(run.path)
    return dataclasses.replace(describe_run(run.path, predictor, score(predictor, dataset, labels)), **changes)


@pytest.fixture(scope="module")
def result(finished):
    split = finished.read_split()
    dataset = SegmentationDataset(split.samples["test"], split.labels, limits=ImageLimits())
    return result_of(finished, dataset, split.labels), dataset, split.labels


def page_of(tmp_path, *arguments, **options):
    write_report(tmp_path / "report.html", *arguments, **options)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_is_balanced_and_needs_nothing_from_elsewhere(tmp_path, result):
    run, dataset, labels = result
    text, page = page_of(tmp_path, [run], dataset, labels)
    links = [link for link in re.findall(r"https?://[^\s\"'<>)]*", text) if not link.startswith(NAMESPACES)]
    assert links == []
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base")
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,")), (tag, name)
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_there_is_one_picture_a_cell_and_one_of_the_routed_image(tmp_path, result):
    run, dataset, labels = result
    _, page = page_of(tmp_path, [run], dataset, labels)
    heads = [a for a in page.all("div") if a.get("class") == "head"]
    assert len(heads) == 4  # image, truth, before tuning, the run
    rows = [a for a in page.all("div") if a.get("class") == "name"]
    assert len(rows) == len(dataset) == 2
    assert len(page.pictures()) == len(rows) * len(heads) + 1
    assert len(page.all("svg")) == 3  # curves, maps, shares
    assert page.text.count("IoU") >= 2 * len(rows)


def test_pictures_keep_their_aspect_and_are_at_most_512_pixels(tmp_path, result):
    run, _, labels = result
    samples = []
    for name, size in (("wide", (30, 900)), ("tall", (700, 350)), ("small", (20, 31)), ("line", (1, 2000))):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
        mask = np.zeros(size, dtype=np.uint8)
        mask[:, : size[1] // 2] = 1
        Image.fromarray(mask).save(tmp_path / f"{name}_mask.png")
        samples.append(Sample(name, tmp_path / f"{name}.png", tmp_path / f"{name}_mask.png", "test"))
    dataset = SegmentationDataset(samples, labels, limits=ImageLimits())
    scores = score(run.predictor, dataset, labels)
    text, page = page_of(tmp_path, [dataclasses.replace(run, scores=scores)], dataset, labels)
    shown = re.findall(r'class="name">(\w+) · (\d+) × (\d+)<', text)
    want = {"wide": (512, 17), "tall": (256, 512), "small": (31, 20), "line": (512, 1)}
    assert {name: (int(w), int(h)) for name, w, h in shown} == {
        "wide": (900, 30),
        "tall": (350, 700),
        "small": (31, 20),
        "line": (2000, 1),
    }
    sizes = page.pictures()
    for i, (name, _, _) in enumerate(shown):
        assert sizes[4 * i : 4 * i + 4] == [want[name]] * 4


def test_names_with_special_characters_are_escaped(tmp_path, result):
    run, _, _ = result
    evil = '<script>alert("x")</script> & "q" \udcff'
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "i.png")
    Image.fromarray(np.eye(20, dtype=np.uint8)).save(tmp_path / "m.png")
    labels = LabelFormat(("background", evil), "ids", 255)
    dataset = SegmentationDataset(
        [Sample(evil, tmp_path / "i.png", tmp_path / "m.png", "test")], labels, limits=ImageLimits()
    )
    scores = score(run.predictor, dataset, labels)
    changed = dataclasses.replace(run, name="<b>run", scores=scores, settings={"a": {"<i>": "</dd>"}})
    _text, page = page_of(tmp_path, [changed], dataset, labels, title="<title> & more")
    assert page.all("script") == [] and page.all("b") == [] and page.all("i") == []
    assert '<script>alert("x")</script> & "q" \\udcff' in page.text
    assert "<title> & more" in page.text and "a.<i>" in page.text and "</dd>" in page.text


def test_the_baseline_is_the_first_column_of_scores(tmp_path, result):
    run, dataset, labels = result
    baseline = dataclasses.replace(run, name="untouched", trainable=0, adapter_bytes=0, log=[], settings={})
    text, page = page_of(tmp_path, [run], dataset, labels, baseline=baseline)
    assert re.search(r"<th>score</th><th>untouched</th><th>conv-lora</th>", text)
    assert re.search(r"<td>trained parameters</td><td>0</td><td>[\d,]{4,}</td>", text)
    assert len([a for a in page.all("div") if a.get("class") == "head"]) == 4


@pytest.fixture(scope="module")
def decoder_run(workspace):
    return train(quick_settings(workspace, "decoder_only", method="decoder", max_steps=1))


def test_a_run_without_experts_has_no_section_on_them(tmp_path, result, decoder_run):
    _, dataset, labels = result
    run = result_of(decoder_run, dataset, labels)
    assert not run.has_experts and run.trainable > 0
    text, page = page_of(tmp_path, [run], dataset, labels)
    assert "Experts of" not in text and len(page.all("svg")) == 1
    assert len(page.pictures()) == 8


def test_two_runs_stand_side_by_side(tmp_path, result, decoder_run):
    run, dataset, labels = result
    text, page = page_of(tmp_path, [result_of(decoder_run, dataset, labels), run], dataset, labels)
    assert len(page.pictures()) == 2 * 5 + 1
    assert "<th>decoder</th><th>conv-lora</th>" in text


def test_several_classes_get_a_table_and_a_legend(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    write_data(folder / "data", classes=3)
    from tests.training.runs import write_checkpoint

    write_checkpoint(folder / "sam")
    run = train(quick_settings(folder, classes=["background", "leaf", "stem"], max_steps=1, model=str(folder / "sam")))
    split = run.read_split()
    dataset = SegmentationDataset(split.samples["test"], split.labels, limits=ImageLimits())
    text, page = page_of(folder, [result_of(run, dataset, split.labels)], dataset, split.labels)
    assert re.search(r"<tr><td>leaf</td><td>(0\.\d{3}|1\.000|absent)</td></tr>", text)
    assert len([a for a in page.all("span") if a.get("class") == "swatch"]) == 2
    assert "ber" not in re.findall(r"<tr><td>(\w+)</td>", text)


def test_a_failed_report_leaves_the_old_one(tmp_path, result, monkeypatch):
    from convlora.evaluation import report

    run, dataset, labels = result
    (tmp_path / "report.html").write_text("old")
    monkeypatch.setattr(report.figures, "routing_maps", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(tmp_path / "report.html", [run], dataset, labels)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("report.html", "old")]
