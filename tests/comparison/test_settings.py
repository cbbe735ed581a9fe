import pytest
import yaml

from convlora.comparison.plan import merged, plan
from convlora.comparison.settings import CompareSettings
from convlora.errors import SettingsError
from convlora.settings import from_arguments
from tests.comparison.studies import study_settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": {}}, "datasets is empty"),
        ({"seeds": []}, "seeds is empty"),
        ({"learning_rates": [1e-3, 1e-3]}, "learning_rates names something twice"),
        ({"learning_rates": [0.0]}, "must be more than 0"),
        ({"metric": "f1"}, "metric='f1' must be one of iou"),
        ({"metric": "s_measure"}, "metric='s_measure' must be one of iou, dice, pixel_accuracy, ber, scores of pooled"),
        (
            {"metric": "ber", "train": {"classes": ["a", "b", "c"]}},
            "metric='ber' is defined for two classes, and there are 3",
        ),
        ({"engine": "ray"}, "engine='ray' must be one of local, submitit"),
        ({"keep": "some"}, "keep='some' must be one of all, adapters, nothing"),
        ({"jobs": 0}, "jobs=0 must be at least 1"),
        ({"reference": "full"}, "reference='full' must be one of the methods .decoder, lora., or null"),
        ({"methods": ["lora", "mine"]}, "methods: 'mine' is no method"),
        ({"methods": {"lora": None, "../up": {"method": "lora"}}}, r"the name '\.\./up' must be letters"),
        ({"train": {"seed": 1}}, "train sets 'seed', which is the study's own; set 'seeds'"),
        ({"methods": {"lora": {"learning_rate": 1e-3}}}, "methods.lora sets 'learning_rate'.* set 'learning_rates'"),
        ({"models": ["a/sam", "b/sam"]}, "two have the same last name"),
        ({"models": [".."]}, r"the model '\.\.' ends without a name"),
        ({"models": ["/"]}, "the model '/' ends without a name"),
        ({"methods": {"lora": {"model": "."}}}, "the model '.' ends without a name"),
        ({"datasets": {2017: {"images": "x"}}}, "datasets: the name 2017 is no text; put it in quotation marks"),
        ({"methods": {True: {"method": "lora"}}, "reference": None}, "methods: the name True is no text"),
        ({"subsets": {5: {"train_images": 5}}}, "subsets: the name 5 is no text"),
        (
            {"methods": {"lora": {"split_seed": 4}}},
            "methods.lora sets 'split_seed', which all methods of a table share",
        ),
        ({"methods": {"lora": {"classes": ["a", "b"]}}}, "methods.lora sets 'classes'"),
        ({"seeds": [0, -1]}, "seed=-1 must be finite and between 0"),
        ({"tuning_seeds": [99999999999]}, "seed=99999999999 must be finite and between 0"),
        ({"learning_rates": [1e-3, float("inf")]}, "learning_rate=inf must be finite"),
        ({"learning_rates": [0.001, 0.0010000001]}, "has two that are equal to six digits"),
        ({"train": {"epoch": 3}}, r"discs · sam-tiny · decoder: unknown setting 'epoch'. Did you mean 'epochs'"),
        ({"train": {"adapter": {"rank": 3}}}, "unknown setting 'adapter.rank'"),
        ({"train": {"epochs": 0}}, "epochs=0 must be at least 1"),
    ],
)
def test_what_is_wrong_is_said_before_any_run(tmp_path, changes, message):
    with pytest.raises(SettingsError, match=message):
        plan(study_settings(tmp_path, **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_read_from_yaml_with_its_numbers_as_numbers(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(
        "output: out\n"
        "datasets: {a: {images: x, val_fraction: 1e-1}}\n"
        "methods: {lora: , learned: {method: conv-lora, adapter: {routing: learned}}}\n"
        "learning_rates: [1e-4, 3e-4]\n"
    )
    settings = from_arguments(CompareSettings, ["--config", str(path), "--jobs", "2"], prog="p", description="d")
    assert settings.learning_rates == [1e-4, 3e-4] and settings.jobs == 2
    first, second = plan(settings)
    assert first.settings.method == "lora" and first.settings.val_fraction == 0.1
    assert second.settings.method == "conv-lora" and second.settings.adapter.routing == "learned"
    assert second.settings.adapter.r == 3


def test_an_unknown_key_of_the_study_has_a_suggestion(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"output": "out", "datasets": {"a": {"images": "x"}}, "method": ["lora"]}))
    with pytest.raises(SettingsError, match=r"unknown setting 'method'\. Did you mean 'methods'"):
        from_arguments(CompareSettings, ["--config", str(path)], prog="p", description="d")


def test_later_settings_win_and_groups_are_merged():
    first = {"epochs": 1, "adapter": {"r": 3, "routing": "learned"}}
    assert merged(first, {"adapter": {"r": 8}}, {"epochs": 2}) == {
        "epochs": 2,
        "adapter": {"r": 8, "routing": "learned"},
    }
    assert first == {"epochs": 1, "adapter": {"r": 3, "routing": "learned"}}


def test_data_set_subset_and_method_change_the_shared_settings_in_this_order(tmp_path):
    settings = study_settings(
        tmp_path,
        datasets={"a": {"images": "x", "epochs": 2, "batch_size": 2, "image_size": 64}},
        subsets={"few": {"epochs": 3, "batch_size": 3}},
        methods={"lora": {"epochs": 4}},
        train={"epochs": 1, "batch_size": 1, "image_size": 32, "warmup": 0.5},
    )
    (cell,) = plan(settings)
    found = cell.settings
    assert (found.epochs, found.batch_size, found.image_size, found.warmup) == (4, 3, 64, 0.5)


def test_methods_may_differ_in_their_part_of_the_training_images(tmp_path):
    methods = {"lora": {"train_images": 3, "subset_seed": 1}, "decoder": {"train_fraction": 0.5}}
    first, second = plan(study_settings(tmp_path, methods=methods))
    assert (first.settings.train_images, second.settings.train_fraction) == (3, 0.5)


def test_every_run_has_its_own_folder_which_names_it(tmp_path):
    settings = study_settings(tmp_path, models=["sam-tiny", "some/other"], subsets={"few": {}, "all": {}})
    cells = plan(settings)
    assert len(cells) == 1 * 2 * 2 * 2
    run = cells[-1].run(3e-4, 7)
    assert run.folder == tmp_path / "study/runs/discs/other/lora/all/lr0.0003-seed7"
    assert (run.settings.learning_rate, run.settings.seed, run.settings.output) == (3e-4, 7, str(run.folder))
    assert len({cell.run(1e-3, 0).folder for cell in cells}) == len(cells)


def test_a_method_with_a_model_of_its_own_shares_its_runs_between_the_tables(tmp_path):
    settings = study_settings(
        tmp_path, models=["sam-tiny", "other"], methods={"lora": {}, "net": {"method": "full", "model": "third"}}
    )
    folders = [cell.run(1e-3, 0).folder for cell in plan(settings)]
    assert folders[1] == folders[3] == tmp_path / "study/runs/discs/third/net/lr0.001-seed0"
    assert folders[0] != folders[2]
