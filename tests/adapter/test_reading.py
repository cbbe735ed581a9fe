"""Files of configurations as PEFT writes them, and with values that it would take."""

import json

import pytest
from peft import LNTuningConfig, LoraConfig

from convlora import ConvLoraConfig
from convlora.adapter.baselines import BitFitConfig, HoulsbyConfig, LstConfig, SamAdapterConfig, SSFConfig, VptConfig
from convlora.adapter.reading import read_config
from convlora.errors import WeightsError

CONFIGS = (
    LoraConfig,
    ConvLoraConfig,
    LNTuningConfig,
    BitFitConfig,
    HoulsbyConfig,
    LstConfig,
    SamAdapterConfig,
    SSFConfig,
    VptConfig,
)


def written(config, folder, **values):
    config.save_pretrained(str(folder))
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return path


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_peft_writes_is_read_back(kind, tmp_path):
    config = kind(target_modules=["a.b", "c"], modules_to_save=["head"])
    if kind is not LNTuningConfig:
        config.layers_to_transform = [0, 2]
    config.inference_mode = True
    found = read_config(written(config, tmp_path))
    assert type(found) is kind
    assert {**found.to_dict(), "target_modules": {"a.b", "c"}} == {**config.to_dict(), "target_modules": {"a.b", "c"}}


def test_ranks_and_grids_are_read_back(tmp_path):
    config = ConvLoraConfig(target_modules=["a"], rank_pattern={"a": 2}, alpha_pattern={"a": 4}, grid=(3, 4), routing=2)
    found = read_config(written(config, tmp_path))
    assert (found.rank_pattern, found.alpha_pattern, found.routing) == ({"a": 2}, {"a": 4}, 2)
    assert list(found.grid) == [3, 4]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (LstConfig, {"layers_to_transform": "ab"}),
        (LstConfig, {"layers_to_transform": [0, "a"]}),
        (LstConfig, {"mlp_ratio": True}),
        (SamAdapterConfig, {"layers_to_transform": [0.5]}),
        (SamAdapterConfig, {"frequency_ratio": "x"}),
        (VptConfig, {"num_prompts": True}),
        (HoulsbyConfig, {"r": 3.0}),
        (LoraConfig, {"use_dora": 1}),
        (LoraConfig, {"loftq_config": "x"}),
        (ConvLoraConfig, {"grid": ["a", 3]}),
    ],
)
def test_a_value_of_the_wrong_type_is_named(kind, values, tmp_path):
    path = written(kind(target_modules=["a"]), tmp_path, **values)
    with pytest.raises(WeightsError, match=f"{next(iter(values))}=.* is of the wrong type"):
        read_config(path)
