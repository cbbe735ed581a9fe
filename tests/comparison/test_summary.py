import dataclasses
import json

import numpy as np
import pytest

from convlora.comparison.compare import write_results
from convlora.comparison.statistics import holm
from convlora.comparison.study import Study
from convlora.comparison.summary import results_json, summarize_study
from convlora.comparison.table import cells, head, markdown
from convlora.errors import DataError
from convlora.objectives.metrics import summarize
from tests.comparison.studies import finish, matrices, study_settings, write_failure, write_record

METHODS = {"decoder": {}, "lora": {}, "conv-lora": {}, "full": {}}
IOU = {"decoder": 0.3, "lora": 0.5, "conv-lora": 0.52, "full": 0.5}


@pytest.fixture
def study(tmp_path):
    return Study(study_settings(tmp_path, methods=METHODS))


def row(study, method):
    ((_, lines),) = summarize_study(study)
    line = next(line for line in lines if line.cell.method == method)
    return dict(zip(head(study.settings), cells(line, study.settings), strict=True))


def test_a_line_is_the_mean_over_the_seeds_at_the_picked_rate(study):
    finish(study, iou=IOU)
    ((group, lines),) = summarize_study(study)
    assert group.title == "discs · sam-tiny" and [line.cell.method for line in lines] == list(METHODS)
    scores = [summarize(np.array(matrices(0.3, seed=seed)))["iou"] for seed in range(3)]
    assert lines[0].score.mean == pytest.approx(np.mean(scores))
    assert lines[0].score.sd == pytest.approx(np.std(scores, ddof=1))
    assert lines[0].mean("seconds") == pytest.approx(101)
    assert [run.seed for run, _ in lines[0].runs] == [0, 1, 2]


def test_differences_are_to_the_reference_on_the_same_images_and_seeds(study):
    finish(study, iou=IOU)
    ((_, lines),) = summarize_study(study)
    decoder, lora, conv, full = lines
    assert lora.difference is None and lora.adjusted is None
    assert decoder.difference.mean == pytest.approx(decoder.score.mean - lora.score.mean)
    assert full.difference.mean == 0 and full.difference.p_value == 1  # the very same matrices
    assert conv.difference.low > 0  # the noise of images and seeds is the same in all methods here, so it cancels
    p_values = [line.difference.p_value for line in (decoder, conv, full)]
    assert [line.adjusted for line in (decoder, conv, full)] == holm(p_values)


@pytest.mark.parametrize(("metric", "side", "sign"), [("iou", "above", 1), ("ber", "below", -1)])
def test_the_table_says_on_which_side_of_0_a_method_is_better(tmp_path, metric, side, sign):
    study = Study(study_settings(tmp_path, metric=metric))
    finish(study, iou={"decoder": 0.8, "lora": 0.4}, best=1e-3)
    tables = summarize_study(study)
    assert sign * tables[0][1][0].difference.mean > 0  # the decoder is better
    text = markdown(study.settings, tables)
    assert f"the method's score less that of lora, so {side} 0 the method is better" in text
    assert ("Lower is better." in text) == (metric == "ber")


def test_only_seeds_that_both_have_are_paired(study):
    cell = next(cell for cell in study.cells if cell.method == "decoder")
    write_failure(cell.run(1e-3, 2), "out of memory")
    finish(study, iou=IOU)
    found = row(study, "decoder")
    assert found["runs"] == "2 of 3, 1 failed"
    ((_, lines),) = summarize_study(study)
    assert lines[0].score.seeds == 2 and lines[0].difference.seeds == 2 and lines[2].difference.seeds == 3


def test_a_method_with_one_seed_left_has_no_p_nor_a_say_in_the_others(study):
    cell = next(cell for cell in study.cells if cell.method == "decoder")
    for seed in (1, 2):
        write_failure(cell.run(1e-3, seed))
    finish(study, iou=IOU)
    ((_, lines),) = summarize_study(study)
    decoder, _, conv, full = lines
    assert decoder.score.low is None and decoder.difference.p_value is None and decoder.adjusted is None
    assert [conv.adjusted, full.adjusted] == holm([conv.difference.p_value, full.difference.p_value])
    found = row(study, "decoder")
    assert found["95 % interval"] == "–" and found["p (Holm)"] == "–"
    assert found["difference to lora [95 %]"] == f"{decoder.difference.mean:+.4f}, 1 of 3 pairs"


def test_a_test_set_without_a_valid_pixel_leaves_the_scores_empty(study):
    for cell in study.cells:
        for rate in study.settings.learning_rates:
            for seed in study.settings.seeds:
                write_record(cell.run(rate, seed), nothing_valid=True)
    study.refresh()
    tables = write_results(study)
    assert all(line.score is None and line.difference is None and line.runs for line in tables[0][1])
    assert row(study, "conv-lora")["test iou (mean ± sd)"] == "–"


def test_runs_of_different_classes_are_refused(study):
    finish(study)
    run = study.cells[0].run(1e-3, 1)
    study.records[run.folder] = dataclasses.replace(study.records[run.folder], classes=["a", "b", "c"])
    with pytest.raises(DataError, match="or with different classes"):
        summarize_study(study)


def test_the_title_of_a_table_says_of_how_many_images_it_is(study):
    assert "## discs · sam-tiny\n" in markdown(study.settings, summarize_study(study))
    finish(study)
    assert "## discs · sam-tiny, 6 test images\n" in markdown(study.settings, summarize_study(study))


def test_a_method_whose_runs_all_failed_stays_in_the_table_with_its_errors(study):
    cell = next(cell for cell in study.cells if cell.method == "full")
    for rate in study.settings.learning_rates:
        write_failure(cell.run(rate, 0), f"loss at {rate:g} | not finite")
    finish(study, iou=IOU)
    found = row(study, "full")
    assert found["test iou (mean ± sd)"] == "–" and found["runs"] == "0 of 3, 3 failed"
    text = markdown(study.settings, summarize_study(study))
    assert "- full, lr0.01-seed0: loss at 0.01 | not finite" in text and "--retry_failed makes them again" in text
    assert [line for line in text.splitlines() if line.startswith("| full |")]


def test_failed_tuning_runs_are_shown_beside_a_rate_that_was_picked(study):
    cell = next(cell for cell in study.cells if cell.method == "lora")
    write_failure(cell.run(1e-2, 0))
    finish(study, iou=IOU)
    assert row(study, "lora")["runs"] == "3 of 3, 1 failed"


def test_without_the_reference_s_runs_there_are_no_differences(study):
    cell = next(cell for cell in study.cells if cell.method == "lora")
    for rate in study.settings.learning_rates:
        write_failure(cell.run(rate, 0))
    finish(study, iou=IOU)
    assert row(study, "decoder")["difference to lora [95 %]"] == "–"


def test_the_edge_of_the_grid_is_marked_in_the_table(study):
    finish(study, best=1e-2, iou=IOU)
    assert row(study, "lora")["learning rate"] == "0.01 (edge of grid)"


def test_a_study_without_a_reference_has_no_columns_of_differences(tmp_path):
    study = Study(study_settings(tmp_path, reference=None))
    finish(study)
    assert not [name for name in head(study.settings) if "difference" in name or name.startswith("p ")]
    assert len(row(study, "lora")) == len(head(study.settings))


def test_an_unfinished_study_says_so(study):
    write_record(study.cells[0].run(1e-3, 0))
    study.refresh()
    text = markdown(study.settings, summarize_study(study))
    assert text.startswith("**Not finished: at least 11 runs are still to be made.**")
    finish(study)
    assert "Not finished" not in markdown(study.settings, summarize_study(study))


def test_runs_on_different_test_images_are_refused(study):
    finish(study)
    write_record(study.cells[0].run(1e-3, 1), images=5)
    del study.records[study.cells[0].run(1e-3, 1).folder]
    study.refresh()
    with pytest.raises(DataError, match="discs · sam-tiny: the runs were scored on different test images"):
        summarize_study(study)


def test_results_hold_every_run_and_what_it_was_made_with(study):
    finish(study, iou=IOU)
    found = json.loads(json.dumps(results_json(study, summarize_study(study)), allow_nan=False))
    assert len(found["runs"]) == 4 * (3 + 2)
    assert found["study"]["methods"] == METHODS and found["libraries"]["torch"]
    conv = found["tables"][0]["lines"][2]
    assert conv["validation_by_rate"] == {"0.0001": 0.1, "0.001": 0.9, "0.01": 0.1}
    assert (conv["seeds"] == [0, 1, 2] and conv["test"]["seeds"] == 3 and conv["p_holm"] == 1) or conv["p_holm"] < 1
    assert {run["settings"]["learning_rate"] for run in found["runs"]} == {1e-4, 1e-3, 1e-2}


def test_results_of_the_same_runs_are_the_same(study):
    finish(study, iou=IOU)
    first, second = (markdown(study.settings, write_results(study)) for _ in range(2))
    assert first == second
