import dataclasses
import json
from itertools import chain

import numpy as np
import pytest
import yaml

from convlora.comparison.compare import write_results
from convlora.comparison.data import check_data_sets
from convlora.comparison.page import write_page
from convlora.comparison.settings import CompareSettings
from convlora.comparison.statistics import difference_estimate, score_estimate
from convlora.comparison.study import Study
from convlora.comparison.summary import summarize_study
from convlora.comparison.table import markdown
from convlora.data.findings.checking import check_data
from convlora.errors import DataError
from convlora.objectives.metrics import summarize
from convlora.settings import from_values
from tests.comparison.studies import matrices, study_settings, write_failure, write_record
from tests.evaluation.pages import Page
from tests.training.runs import write_data

FOLDS = {f"fold-{i}": {"fold": i} for i in range(3)}
SIZES = (5, 4, 6)


def study_of(folder, subsets=FOLDS, **changes):
    given = study_settings(folder, learning_rates=[1e-3], subsets=subsets, **changes)
    return Study(dataclasses.replace(given, train={**given.train, "folds": 3}))


def score_of(cell, seed):
    return 0.3 + 0.1 * cell.settings.fold + 0.02 * seed + 0.1 * (cell.method == "lora")


def finish(study, skip=()):
    study.refresh()
    for run in study.missing():
        if (run.cell.settings.fold, run.cell.method, run.seed) not in skip:
            iou, images = score_of(run.cell, run.seed), SIZES[run.cell.settings.fold]
            write_record(run, iou=iou, images=images)
    study.refresh()


def by_hand(method, seed):
    added = 0.02 * seed + 0.1 * (method == "lora")
    return np.concatenate([matrices(0.3 + 0.1 * fold + added, SIZES[fold], seed) for fold in range(3)]).astype(int)


def test_all_folds_together_are_one_more_table_over_every_image(tmp_path):
    study = study_of(tmp_path)
    finish(study)
    tables = summarize_study(study)
    assert [group.subset for group, _ in tables] == [*FOLDS, "all 3 folds (fold-0, fold-1, fold-2)"]
    decoder, lora = tables[-1][1]
    of_decoder, of_lora = (np.stack([by_hand(method, seed) for seed in range(3)]) for method in ("decoder", "lora"))
    assert of_decoder.shape == (3, 15, 2, 2)
    assert decoder.score.mean == pytest.approx(np.mean([summarize(of_seed)["iou"] for of_seed in of_decoder]))
    assert decoder.score == score_estimate(of_decoder, "iou") and decoder.score.images == 15
    assert decoder.difference == difference_estimate(of_decoder, of_lora, "iou") and lora.difference is None
    assert decoder.pick.learning_rate == 1e-3 and [run.seed for run, _ in decoder.runs] == [0, 1, 2]
    assert [line.missing for line in (decoder, lora)] == [0, 0]
    assert "all 3 folds (fold-0, fold-1, fold-2) · sam-tiny, 15 test images" in markdown(study.settings, tables)


def test_a_seed_that_a_fold_lacks_is_left_out_and_without_a_fold_there_is_no_such_table(tmp_path):
    study = study_of(tmp_path)
    finish(study, skip={(1, "decoder", 0), (2, "lora", 2)})
    write_failure(next(c for c in study.cells if c.method == "decoder" and c.settings.fold == 1).run(1e-3, 0))
    study.refresh()
    decoder, lora = summarize_study(study)[-1][1]
    assert [run.seed for run, _ in decoder.runs] == [1, 2] and [run.seed for run, _ in lora.runs] == [0, 1]
    assert decoder.difference.seeds == 1
    two = study_of(tmp_path / "two", subsets={"a": {"fold": 0}, "b": {"fold": 1}})
    finish(two)
    assert [group.subset for group, _ in summarize_study(two)] == ["a", "b"]
    nothing = study_of(tmp_path / "nothing")
    assert len(summarize_study(nothing)) == 3


def test_subsets_that_differ_in_more_than_the_fold_are_different_sets_of_folds(tmp_path):
    subsets = {f"{few}-{fold}": {"fold": fold, "train_images": few} for few in (1, 2) for fold in range(3)}
    study = study_of(tmp_path, subsets)
    finish(study)
    joined = [(group, lines) for group, lines in summarize_study(study) if group.joined]
    assert [group.subset for group, _ in joined] == ["all 3 folds (1-0, 1-1, 1-2)", "all 3 folds (2-0, 2-1, 2-2)"]


def test_page_and_results_have_the_joint_table(tmp_path):
    study = study_of(tmp_path)
    finish(study)
    write_results(study)
    output = tmp_path / "study"
    results = json.loads((output / "results.json").read_text())
    assert [table["joined"] for table in results["tables"]] == [False, False, False, True]
    assert len(results["runs"]) == 18
    line = results["tables"][-1]["lines"][0]
    assert line["test"]["images"] == 15 and line["validation_by_rate"] == {"0.001": None}
    write_page(tmp_path / "page.html", study, summarize_study(study))
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "all 3 folds" in page.text and "Score by subset" not in page.text
    assert page.text.count("No pictures") == 3  # of the folds, whose run folders are made up


STUDY = r"""
output: OUT
datasets:
  discs: {group: 'i(\d)', folds: 3, classes: [background, a, b], class_map: {b: a}}
subsets:
  fold-0: {fold: 0}
  fold-1: {fold: 1}
  fold-2: {fold: 2, class_colours: {a: "#123456"}}
learning_rates: [1e-3]
train: {images: DATA/images, masks: DATA/masks}
"""


def test_folds_and_classes_of_a_yaml_file_reach_the_runs_and_every_image_is_tested_once(tmp_path):
    write_data(tmp_path / "data", classes=3)
    values = yaml.safe_load(STUDY.replace("OUT", str(tmp_path / "out")).replace("DATA", str(tmp_path / "data")))
    study = Study(from_values(CompareSettings, values, source="study.yaml"))
    check_data_sets(study.missing(), tuned=False)
    cells = [cell for cell in study.cells if cell.method == "lora"]
    checked = [check_data(cell.settings) for cell in cells]
    assert all(one.labels.classes == ("background", "a") for one in checked)
    assert checked[2].labels.palette[1] == (0x12, 0x34, 0x56)
    tested = list(chain.from_iterable([sample.name for sample in one.splits["test"]] for one in checked))
    assert sorted(tested) == [f"i{i}" for i in range(9)]
    many = {**values, "datasets": {"discs": {**values["datasets"]["discs"], "folds": 20}}}
    with pytest.raises(DataError, match=r"^discs · fold-0: folds=20 are more than there are .*: 9. Give fewer folds"):
        check_data_sets(Study(from_values(CompareSettings, many, source="x")).missing(), tuned=False)
