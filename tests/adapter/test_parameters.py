import torch
from peft import LNTuningConfig, LoraConfig, VeraConfig, get_peft_model

from convlora.adapter.parameters import added_parameters, base_parameters
from tests.adapter.models import Vit, adapted


def test_a_base_parameter_that_is_named_like_an_adapters_belongs_to_the_base():
    model = Vit()
    model.lora_like = torch.nn.Linear(2, 2)
    names = [name for name, _ in model.named_parameters()]
    tuned = get_peft_model(model, LoraConfig(target_modules=["qkv"], modules_to_save=["head"]))
    assert sorted(base_parameters(tuned)) == sorted(names)
    assert not any("lora_like" in name for name in added_parameters(tuned))


def test_every_parameter_is_one_or_the_other():
    for model in (
        adapted(),
        get_peft_model(Vit(), LNTuningConfig(target_modules=["head"])),
        get_peft_model(Vit(), VeraConfig(target_modules=["qkv"], r=2)),  # its tuner holds what layers share
    ):
        parts = [*base_parameters(model).values(), *added_parameters(model).values()]
        assert len({id(p) for p in parts}) == len(parts) == len(list(model.parameters()))
        assert sorted(base_parameters(model)) == sorted(name for name, _ in Vit().named_parameters())


def test_the_adapters_of_an_inactive_name_are_no_base_weights_either():
    model = adapted()
    model.add_adapter("second", model.peft_config["default"])
    assert sorted(base_parameters(model)) == sorted(name for name, _ in Vit().named_parameters())
    assert any(".second" in name for name in added_parameters(model))
