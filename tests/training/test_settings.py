import pytest

from convlora.errors import SettingsError
from convlora.training.settings import AdapterSettings, TrainSettings, as_dict, from_dict, validate


def settings(**changes):
    return TrainSettings(images="i", masks="m", output="o", **changes)


def test_a_tree_becomes_plain_values_and_comes_back():
    tree = settings(classes=["a", "b"], adapter=AdapterSettings(routing=4), report_to=["tensorboard"])
    assert from_dict(as_dict(tree), source="x") == tree


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "conv_lora"}, "method='conv_lora' must be one of conv-lora, lora, decoder, full"),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"metric": "acc"}, "metric='acc'"),
        ({"resize": "fit"}, "resize='fit'"),
        ({"device": "tpu"}, "device='tpu'"),
        ({"loss": "dicee"}, "loss='dicee'"),
        ({"report_to": ["wandb"]}, "report_to: 'wandb'"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be finite"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"warmup": 1.5}, "warmup=1.5"),
        ({"seed": -1}, "seed=-1"),
        ({"adapter": AdapterSettings(r=0)}, "adapter.r=0"),
        ({"adapter": AdapterSettings(routing="x")}, "adapter.routing='x'"),
        ({"adapter": AdapterSettings(balance_weight=float("inf"))}, "adapter.balance_weight=inf"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(changes, message):
    with pytest.raises(SettingsError, match=message):
        validate(settings(**changes))


def test_all_problems_are_reported_at_once():
    with pytest.raises(SettingsError, match=r"method='x'.*epochs=0.*batch_size=0"):
        validate(settings(method="x", epochs=0, batch_size=0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learningrate": 1}, r"f\.yaml: unknown setting 'learningrate'\. Did you mean 'learning_rate'"),
        ({"adapter": {"rank": 1}}, r"f\.yaml: unknown setting 'adapter.rank'\. Did you mean 'adapter\.r'"),
        ({"epochs": "many"}, r"f\.yaml: setting 'epochs' must be int, not many"),
        ({"epochs": 1.5}, r"f\.yaml: setting 'epochs' must be int, not 1\.5"),
    ],
)
def test_unknown_keys_and_wrong_types_are_refused_with_a_suggestion(values, message):
    with pytest.raises(SettingsError, match=message):
        from_dict({"images": "i", "output": "o", **values}, source="f.yaml")
