import dataclasses

import pytest

from convlora.errors import SettingsError
from convlora.training.settings import (
    METHODS,
    METRICS,
    AdapterSettings,
    TrainSettings,
    as_dict,
    decoder_problem,
    from_dict,
    metric_problem,
    validate,
)


def settings(**changes):
    return TrainSettings(images="i", masks="m", output="o", **changes)


def test_a_tree_becomes_plain_values_and_comes_back():
    tree = settings(classes=["a", "b"], adapter=AdapterSettings(routing=4), report_to=["tensorboard"])
    written = dataclasses.replace(tree, augmentation=tree.augmentation.written_out())
    assert from_dict(as_dict(tree), source="x") == written and as_dict(written) == as_dict(tree)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "conv_lora"}, "method='conv_lora' must be one of conv-lora, lora, dora, adapter, "),
        ({"precision": "fp8"}, "precision='fp8'"),
        ({"metric": "acc"}, "metric='acc'"),
        (
            {"metric": "s_measure", "classes": ["a", "b", "c"]},
            "metric='s_measure' is defined for two classes, and there are 3; use iou, dice, pixel_accuracy",
        ),
        ({"resize": "fit"}, "resize='fit'"),
        ({"device": "tpu"}, "device='tpu'"),
        ({"loss": "dicee"}, "loss='dicee'"),
        ({"head": "boxes"}, "head='boxes' must be one of classes, queries"),
        ({"head": "queries", "loss": "dice-ce"}, "loss='dice-ce' takes one mask per class.*: use set"),
        ({"loss": "set"}, "loss='set' matches masks that may be of any class: use it with head='queries'"),
        ({"num_queries": 5}, "num_queries=5 is for head='queries'"),
        ({"head": "queries", "num_queries": 0}, "num_queries=0 must be at least 1"),
        ({"report_to": ["wandb"]}, "report_to: 'wandb'"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be finite"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"warmup": 1.5}, "warmup=1.5"),
        ({"seed": -1}, "seed=-1"),
        ({"adapter": AdapterSettings(r=0)}, "adapter.r=0"),
        ({"adapter": AdapterSettings(lora_alpha=0)}, "adapter.lora_alpha=0 must be at least 1"),
        (
            {"adapter": AdapterSettings(blocks=2), "method": "full"},
            "adapter.blocks=2 chooses blocks.*'full' adapts none",
        ),
        ({"adapter": AdapterSettings(routing="x")}, "adapter.routing='x'"),
        ({"adapter": AdapterSettings(activation="relu")}, "adapter.activation='relu' must be one of gelu, none"),
        ({"adapter": AdapterSettings(kernel_size=5)}, "adapter.kernel_size=5 must be one of 3, 1"),
        ({"adapter": AdapterSettings(context="all")}, "adapter.context='all' must be one of window, image"),
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


def test_metrics_are_defined_and_those_of_two_classes_only_are_known():
    from convlora.objectives.metrics import DEFINITIONS

    assert set(METRICS) < set(DEFINITIONS)
    for name in METRICS:
        validate(settings(metric=name, classes=["a", "b"]))
        assert (metric_problem(name, 3) is not None) == ("binary tasks only" in DEFINITIONS[name])


def test_the_variants_of_the_layer_are_those_of_the_adapter():
    from convlora.adapter import config
    from convlora.training import settings as training

    assert sorted(training.ROUTINGS) == sorted(config.ROUTINGS)
    allowed = {"activation": config.ACTIVATIONS, "kernel_size": config.KERNEL_SIZES, "context": config.CONTEXTS}
    assert allowed == training.VARIANTS
    for name in ("routing", "residual", *allowed):
        assert getattr(AdapterSettings(), name) == config.ConvLoraConfig.__dataclass_fields__[name].default


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "lora"}, "model='unet' has no trained weights to tune with method='lora'; use scratch"),
        ({"method": "scratch", "gradient_checkpointing": True}, "gradient_checkpointing is not available"),
        ({"method": "scratch", "head": "queries"}, "head='queries' is one of SAM's mask decoder"),
        (
            {"method": "scratch", "adapter": AdapterSettings(decoder="frozen")},
            "adapter.decoder='frozen' leaves method='scratch' nothing",
        ),
    ],
)
def test_what_a_unet_cannot_do_is_refused_before_the_data_is_read(changes, message):
    with pytest.raises(SettingsError, match=message):
        validate(settings(model="unet", **changes))


def test_a_unet_without_monai_is_refused_before_the_data_is_read(monkeypatch):
    monkeypatch.setattr("convlora.training.settings.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"model='unet' needs MONAI.*install convlora\[unet\]"):
        validate(settings(model="unet", method="scratch"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_goes_with_a_tuned_decoder(method):
    assert decoder_problem(method, "tuned") is None
