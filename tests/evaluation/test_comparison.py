import dataclasses
import json

import pytest

from convlora.errors import DataError, OutputError, SettingsError
from convlora.evaluation.comparison import compare
from convlora.training.events import Progress, Started
from tests.evaluation.pages import Page
from tests.training.runs import quick_settings, weights_hash

METHODS = ["decoder", "conv-lora"]


class Crash(Exception):  # noqa: N818
    pass


@pytest.fixture(scope="module")
def settings(workspace):
    return quick_settings(workspace, "compared", max_steps=2, evaluate_every=1)


@pytest.fixture(scope="module")
def compared(settings):
    """Crashes in the second method, then continues."""

    def crash(event):
        if isinstance(event, Progress) and event.loss is not None and event.step == 2 and announced[-1] == "conv-lora":
            raise Crash

    announced, started = [], []
    with pytest.raises(Crash):
        compare(settings, METHODS, title="T", announce=announced.append, report=crash)
    comparison = compare(
        settings, METHODS, title="T", report=lambda event: started.append(event) if isinstance(event, Started) else None
    )
    return comparison, announced, started


def test_an_interrupted_comparison_continues_where_it_was(compared):
    comparison, announced, started = compared
    assert announced == METHODS
    assert [event.first_step for event in started] == [1]  # the decoder is finished, conv-lora has one step
    assert [result.name for result in comparison.results] == METHODS


def test_all_methods_are_scored_on_the_same_images_and_the_untouched_model_too(compared, settings):
    comparison, *_ = compared
    parts = [comparison.baseline, *comparison.results]
    names = [[image.name for image in result.scores.images] for result in parts]
    assert len(names[0]) == 2 and names[0] == names[1] == names[2]
    assert comparison.baseline.trainable == 0 < comparison.results[0].trainable < comparison.results[1].trainable
    written = json.loads(comparison.report.with_name("metrics.json").read_text())
    assert [entry["name"] for entry in written] == ["untouched SAM", *METHODS]
    page = Page(comparison.report.read_text(encoding="utf-8"))
    assert len(page.pictures()) == 2 * 5 + 1


def test_the_untouched_model_is_scored_without_any_adapter(compared, workspace):
    from convlora.data.dataset import SegmentationDataset
    from convlora.data.settings import ImageLimits
    from convlora.inference.predictor import Predictor
    from convlora.sam import SamForSemanticSegmentation
    from convlora.training.folder import RunFolder

    comparison, *_ = compared
    folder = RunFolder(comparison.report.parent / "conv-lora")
    split = folder.read_split()
    predictor = Predictor.from_folder(folder.path, precision="fp32")
    base = SamForSemanticSegmentation.from_pretrained(workspace / "sam").eval()
    predictor.model = base
    from convlora.evaluation.scoring import score

    dataset = SegmentationDataset(split.samples["test"], split.labels, limits=ImageLimits())
    assert score(predictor, dataset, split.labels, batch_size=2).summary == comparison.baseline.scores.summary


def test_a_finished_comparison_trains_nothing_again(compared, settings):
    comparison, *_ = compared
    events = []
    again = compare(settings, METHODS, title="T", report=events.append)
    assert events == []
    assert [r.scores for r in again.results] == [r.scores for r in comparison.results]


def test_other_settings_in_the_same_folder_are_refused(compared, settings):
    from convlora.training.folder import RunFolder

    comparison, *_ = compared
    before = weights_hash(RunFolder(comparison.report.parent / "decoder"))
    with pytest.raises(OutputError, match="holds a run with other settings"):
        compare(dataclasses.replace(settings, seed=1), METHODS, title="T")
    assert weights_hash(RunFolder(comparison.report.parent / "decoder")) == before


@pytest.mark.parametrize("methods", [[], ["decoder", "decoder"], ["decoder", "nothing"]])
def test_wrong_methods_are_refused_before_anything_is_trained(workspace, methods):
    settings = quick_settings(workspace, "not_compared")
    with pytest.raises(SettingsError, match=r"must be some of conv-lora, lora, .*, each once"):
        compare(settings, methods, title="T")
    assert not (workspace / "not_compared").exists()


def test_a_folder_with_other_files_is_refused(workspace, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds other files, such as mine\.txt"):
        compare(quick_settings(workspace, output=tmp_path), METHODS, title="T")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_comparison_without_test_images_is_refused(workspace):
    with pytest.raises(DataError, match="no images were set aside as test"):
        compare(quick_settings(workspace, "no_test", test_fraction=0.0, max_steps=1), ["decoder"], title="T")
