import math

import pytest
import yaml

from convlora.comparison.records import Record, record_path
from convlora.comparison.study import Pick, Study
from convlora.errors import OutputError, WeightsError
from convlora.training.folder import RunFolder
from convlora.training.settings import as_dict
from tests.comparison.studies import finish, study_settings, write_failure, write_record, write_split


@pytest.fixture
def study(tmp_path):
    return Study(study_settings(tmp_path))


def test_rates_are_tuned_first_then_the_picked_one_gets_its_other_seeds(study):
    decoder, lora = study.cells
    assert [(run.cell.method, run.learning_rate, run.seed) for run in study.missing()] == [
        (method, rate, 0) for method in ("decoder", "lora") for rate in (1e-4, 1e-3, 1e-2)
    ]
    assert study.progress() == (0, 2 * (3 + 2))
    for rate, score in ((1e-4, 0.6), (1e-3, 0.8), (1e-2, 0.7)):
        write_record(lora.run(rate, 0), validation=score)
    study.refresh()
    assert study.pick(lora) == Pick(1e-3, False) and study.pick(decoder) is None
    wanted = [(run.learning_rate, run.seed) for run in study.missing() if run.cell is lora]
    assert wanted == [(1e-3, 1), (1e-3, 2)]  # seed 0 was made for the tuning
    finish(study)
    assert study.missing() == [] and study.progress() == (10, 10)


@pytest.mark.parametrize(("best", "at_edge"), [(1e-4, True), (1e-3, False), (1e-2, True)])
def test_a_pick_at_the_edge_of_the_grid_is_marked(study, best, at_edge):
    finish(study, best=best)
    assert study.pick(study.cells[0]) == Pick(best, at_edge)


def test_the_least_error_rate_is_the_best(tmp_path):
    study = Study(study_settings(tmp_path, metric="ber"))
    for rate, score in ((1e-4, 30.0), (1e-3, 10.0), (1e-2, 10.0)):
        write_record(study.cells[0].run(rate, 0), validation=score)
    study.refresh()
    assert study.pick(study.cells[0]) == Pick(1e-3, False)


def test_equal_scores_pick_the_smaller_rate(study):
    for rate in (1e-2, 1e-3, 1e-4):
        write_record(study.cells[0].run(rate, 0), validation=0.7)
    study.refresh()
    assert study.pick(study.cells[0]).learning_rate == 1e-4


def test_the_pick_is_by_the_mean_over_the_tuning_seeds(tmp_path):
    study = Study(study_settings(tmp_path, tuning_seeds=[0, 5], learning_rates=[1e-4, 1e-3]))
    cell = study.cells[0]
    for rate, scores in ((1e-4, (0.9, 0.1)), (1e-3, (0.6, 0.6))):
        for seed, score in zip((0, 5), scores, strict=True):
            assert study.pick(cell) is None
            write_record(cell.run(rate, seed), validation=score)
            study.refresh()
    assert study.pick(cell).learning_rate == 1e-3
    assert study.validation(cell, 1e-4) == pytest.approx(0.5)


def test_a_rate_with_a_failed_run_is_not_picked(study):
    cell = study.cells[0]
    write_failure(cell.run(1e-2, 0))
    write_record(cell.run(1e-3, 0), validation=0.3)
    write_record(cell.run(1e-4, 0), validation=0.2)
    study.refresh()
    assert math.isnan(study.validation(cell, 1e-2))
    assert study.pick(cell) == Pick(1e-3, False)


def test_where_every_rate_failed_nothing_more_is_tried(study):
    cell = study.cells[0]
    for rate in (1e-4, 1e-3, 1e-2):
        write_failure(cell.run(rate, 0))
    study.refresh()
    assert study.pick(cell) is None and study.final(cell) == []
    assert all(run.cell is not cell for run in study.missing())
    assert study.progress() == (3, 3 + 5)


def test_one_rate_needs_no_tuning(tmp_path):
    study = Study(study_settings(tmp_path, learning_rates=[1e-3], tuning_seeds=[9]))
    assert [run.seed for run in study.missing()] == [0, 1, 2] * 2
    assert study.pick(study.cells[0]) == Pick(1e-3, False)


def test_failed_runs_are_made_again_only_when_asked(tmp_path):
    study = Study(study_settings(tmp_path))
    write_failure(study.cells[0].run(1e-3, 0))
    study.open()
    assert len(study.missing()) == 5
    again = Study(study_settings(tmp_path, retry_failed=True))
    again.open()
    again.forget_failures()
    assert len(again.missing()) == 6


def test_runs_with_other_settings_are_refused(tmp_path, study):
    run = study.cells[0].run(1e-3, 0)
    write_record(run)
    before = record_path(run.folder).read_bytes()
    with pytest.raises(OutputError, match="made with other settings: max_steps was 2 and is now 3"):
        Study(study_settings(tmp_path, train={"max_steps": 3})).open()
    assert record_path(run.folder).read_bytes() == before


def test_a_half_made_run_with_other_settings_is_refused(tmp_path, study):
    (tmp_path / "images").mkdir()
    run = study.cells[0].run(1e-3, 0)
    write_split(run, tmp_path / "images", tmp_path)
    RunFolder(run.folder).config.write_text(yaml.safe_dump(as_dict(run.settings)))
    study.open()
    with pytest.raises(OutputError, match="seed0 was made with other settings: max_steps was 2 and is now 3"):
        Study(study_settings(tmp_path, train={"max_steps": 3})).open()


def test_a_run_that_failed_before_its_folder_was_made_may_change_its_settings(tmp_path, study):
    run = study.cells[0].run(1e-3, 0)
    write_failure(run, "no checkpoint")
    changed = Study(study_settings(tmp_path, train={"max_steps": 3}))
    changed.open()
    assert record_path(run.folder).exists()  # until runs are made
    changed.forget_failures()
    assert not record_path(run.folder).exists() and len(changed.missing()) == 6


@pytest.mark.parametrize("left", [None, "checkpoints/checkpoint-1", "adapter"])
def test_a_failed_run_may_change_its_settings_unless_it_left_weights(tmp_path, study, left):
    run = study.cells[0].run(1e-3, 0)
    folder = RunFolder(run.folder)
    folder.path.mkdir(parents=True)
    folder.config.write_text(yaml.safe_dump(as_dict(run.settings)))
    if left:
        (folder.path / left).mkdir(parents=True)
    write_failure(run)
    changed = Study(study_settings(tmp_path, train={"max_steps": 3}))
    if left:
        with pytest.raises(OutputError, match="max_steps was 2 and is now 3"):
            changed.open()
    else:
        changed.open()
        changed.forget_failures()
    assert folder.config.exists() == record_path(run.folder).exists() == bool(left)


def test_what_a_failed_run_can_be_continued_from_is_kept_when_it_is_retried(tmp_path):
    study = Study(study_settings(tmp_path, retry_failed=True))
    run = study.cells[0].run(1e-3, 0)
    (run.folder / "adapter").mkdir(parents=True)
    write_failure(run, "out of memory while the test images were scored")
    study.open()
    study.forget_failures()
    assert (run.folder / "adapter").is_dir() and run in study.missing()


def test_settings_that_a_later_version_knows_do_not_make_old_runs_different(tmp_path, study):
    run = study.cells[0].run(1e-3, 0)
    write_record(run)
    record = Record.read(run.folder)
    del record.settings["warmup"]  # as if it had not existed then
    record.write(run.folder)
    study.open()
    assert run.folder in study.records


def test_a_damaged_record_is_named(study):
    run = study.cells[0].run(1e-3, 0)
    record_path(run.folder).parent.mkdir(parents=True)
    record_path(run.folder).write_text("{")
    with pytest.raises(WeightsError, match=r"lr0\.001-seed0\.json is not readable .*Remove it"):
        study.refresh()
