import pytest

from convlora.comparison.data import check_data_sets
from convlora.comparison.study import Study
from convlora.errors import DataError, PairingError, SettingsError
from tests.comparison.studies import study_settings
from tests.training.runs import write_data


@pytest.fixture
def folder(tmp_path):
    write_data(tmp_path / "data")
    return tmp_path


def check(settings):
    check_data_sets(Study(settings).missing(), tuned=len(settings.learning_rates) > 1)


def test_data_that_can_be_used_pass(folder):
    check(study_settings(folder, subsets={"few": {"train_images": 2}, "all": {}}))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"train": {"masks": "/nowhere"}, "datasets": {"a": {"images": "DATA"}}}, PairingError, "^a: .*/nowhere"),
        ({"datasets": {"a": {"images": "DATA"}}}, SettingsError, "^a: masks is missing"),
        ({"train": {"test_fraction": 0.0}}, DataError, "^discs: no images are set aside as test"),
        ({"train": {"val_fraction": 0.0}}, DataError, "^discs: no images are set aside as val, by which the learning"),
        ({"train": {"val_fraction": 0.9, "group": "^(i)"}}, SettingsError, "less than 1"),
        ({"train": {"group": r"^i(\d)x"}}, SettingsError, "^discs: group=.* does not match"),
        ({"subsets": {"many": {"train_images": 50}}}, DataError, "^discs · many: train_images=50, but"),
        ({"methods": {"lora": {}, "decoder": {"train_images": 50}}}, DataError, "^discs: train_images=50, but"),
    ],
)
def test_what_would_make_every_run_fail_is_said_before(folder, changes, error, message):
    if "datasets" in changes:
        changes = {**changes, "datasets": {"a": {"images": str(folder / "data/images")}}}
    with pytest.raises(error, match=message):
        check(study_settings(folder, **changes))


def test_one_rate_needs_no_validation_images(folder):
    check(study_settings(folder, learning_rates=[1e-3], train={"val_fraction": 0.0}))


def test_the_images_of_a_data_set_are_looked_for_once(folder, monkeypatch):
    from convlora.comparison import data

    looks = []
    find = data.find_data
    monkeypatch.setattr(data, "find_data", lambda settings: looks.append(settings.images) or find(settings))
    check(study_settings(folder, subsets={"few": {"train_images": 2}, "all": {}}))
    assert len(looks) == 1
