import pytest

from convlora.comparison.page import write_page
from convlora.comparison.study import Study
from convlora.comparison.summary import summarize_study
from tests.comparison.studies import finish, study_settings, write_failure, write_split
from tests.evaluation.pages import Page
from tests.training.runs import write_data


def page_of(study, folder):
    path = folder / "index.html"
    write_page(path, study, summarize_study(study))
    text = path.read_text(encoding="utf-8")
    return Page(text), text


@pytest.fixture
def study(tmp_path):
    write_data(tmp_path / "data", count=6)
    study = Study(study_settings(tmp_path, subsets={"few": {}, "all": {}}))
    for cell in study.cells:
        write_split(cell.run(1e-3, 0), tmp_path / "data/images", tmp_path / "data/masks")
    return study


def test_the_page_shows_tables_curves_and_the_images_of_most_disagreement(study, tmp_path):
    finish(study, iou={"decoder": 0.4, "lora": 0.6})
    page, _ = page_of(study, tmp_path)
    assert len(page.all("table")) == 2
    assert len(page.pictures()) == 2 * 4 * (2 + 2)  # tables × images × (image, truth, two methods)
    assert len(page.all("svg")) == 1 + 2 * 2  # by subset; for each table: differences and rates
    assert not page.all("script") and not page.all("link")  # nothing is fetched
    assert all(name in page.text for name in ("discs · few · sam-tiny", "lora · IoU", "decoder", "disc"))


def test_images_and_masks_are_of_one_size(study, tmp_path):
    finish(study)
    sizes = page_of(study, tmp_path)[0].pictures()
    for start in range(0, len(sizes), 4):
        assert len(set(sizes[start : start + 4])) == 1


def test_failures_and_missing_runs_are_on_the_page(study, tmp_path):
    write_failure(study.cells[0].run(1e-3, 0), "<b>bad</b> loss")
    study.refresh()
    page, text = page_of(study, tmp_path)
    assert "failed: decoder, lr0.001-seed0: <b>bad</b> loss" in page.text and "<b>bad" not in text
    assert "Not finished" in page.text and page.pictures() == []


def test_a_page_is_written_when_the_images_are_gone(study, tmp_path):
    finish(study)
    for path in (tmp_path / "data/images").iterdir():
        path.unlink()
    page, _ = page_of(study, tmp_path)
    assert page.pictures() == [] and page.text.count("No pictures: ") == 2
