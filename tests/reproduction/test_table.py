import pytest

from convlora.data.catalog.sets import SETS
from convlora.objectives.metrics import DEFINITIONS
from convlora.reproduction.published import MODEL, PUBLISHED
from convlora.reproduction.table import Reproduction, Run, markdown, rows


def result(model=MODEL, **changes):
    scores = [{"SBU": {"ber": 3.0 + seed, "ber_per_image": 2.0 + seed}} for seed in range(2)]
    runs = [Run("conv-lora", seed, score) for seed, score in enumerate(scores)]
    return Reproduction(
        **{
            "entry": SETS["sbu-shadow"],
            "model": model,
            "picked_by": "ber_per_image",
            "changes": {},
            "runs": runs,
            "notes": [],
            **changes,
        }
    )


def test_the_papers_figure_stands_beside_the_score_of_its_definition():
    assert rows(result())[1:] == [
        ["SBU", "conv-lora", "ber_per_image", "2.50 ± 0.71", "2.54", "-0.04", "2 of 2"],
        ["SBU", "conv-lora", "ber", "3.50 ± 0.71", "–", "–", "2 of 2"],
    ]


def test_undefined_scores_and_failed_runs_are_counted_out():
    runs = [Run("lora", 0, {"SBU": {"ber": None, "ber_per_image": 2.0}}), Run("lora", 1, error="no")]
    assert [row[3:] for row in rows(result(runs=runs))[1:]] == [
        ["2.00", "2.74", "-0.74", "1 of 2, 1 failed"],
        ["–", "–", "–", "0 of 2, 1 failed"],
    ]


@pytest.mark.parametrize(("model", "same"), [(MODEL, True), ("/models/sam-vit-huge/", True), ("sam-tiny", False)])
def test_another_model_than_the_papers_is_shouted(model, same):
    text = markdown(result(model), {})
    assert f"model: {model}" in text and ("NOT COMPARABLE" in text.upper()) is not same


@pytest.mark.parametrize(
    ("name", "metric", "remark"),
    [
        ("sbu-shadow", "ber_per_image", "ber_per_image; as in the paper's code"),
        ("sbu-shadow", "iou", "iou; the paper's code picks it by ber_per_image"),
        ("trans10k", "iou", "iou; what the paper's code picks it by is not known"),
    ],
)
def test_what_picks_the_checkpoint_is_said_beside_the_papers(name, metric, remark):
    text = markdown(result(entry=SETS[name], picked_by=metric, runs=[]), {})
    assert f"\n- the checkpoint of a run is picked by validation {remark}\n" in text


def test_changes_notes_and_reports_are_listed():
    text = markdown(
        result(changes={"epochs": 2, "adapter.r": 4}, notes=["a note"]), {"a title": "scores/x/report.html"}
    )
    assert "- changed from the preset: epochs=2; adapter.r=4" in text and "\n- a note\n" in text
    assert "- [a title](scores/x/report.html)" in text


def test_every_set_has_published_figures_for_scores_that_it_reports():
    assert set(PUBLISHED) == set(SETS)
    for name, published in PUBLISHED.items():
        assert set(published.metrics) <= set(DEFINITIONS)
        tests = {test.name for test in SETS[name].tests}
        assert published.figures and all(
            test in tests and metric in published.metrics for test, metric in published.figures
        )
        assert {test for test, _ in published.figures} == tests
