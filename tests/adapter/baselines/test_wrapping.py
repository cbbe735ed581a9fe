"""The baselines that wrap single modules, against their formulas, on a model that is not a SAM."""

import copy

import pytest
import torch
import torch.nn.functional as F
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers.models.sam.modeling_sam import SamLayerNorm

from convlora.adapter.baselines import BitFitConfig, HoulsbyConfig, SSFConfig

CONFIGS = {"bitfit": BitFitConfig, "ssf": SSFConfig, "houlsby": HoulsbyConfig}
OPERATIONS = ["conv", "norm", "up", "linear", "last"]


class Network(nn.Module):
    """One of each operation: a convolution, a norm over its channels, a transposed convolution, two linear layers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = SamLayerNorm(6, data_format="channels_first")
        self.up = nn.ConvTranspose2d(6, 5, 2, stride=2)
        self.linear = nn.Linear(5, 7)
        self.last = nn.LayerNorm(7)
        with torch.no_grad():
            for parameter in self.parameters():
                nn.init.normal_(parameter)

    def forward(self, x):
        x = torch.tanh(self.up(self.norm(self.conv(x))))
        return self.last(self.linear(x.movedim(1, -1)))


def network():
    torch.manual_seed(0)
    return Network()


def adapted(method, trained=True, **values):
    config = CONFIGS[method](target_modules=["linear"] if method == "houlsby" else OPERATIONS, **values)
    model = get_peft_model(network(), config)
    return move(model) if trained else model


@torch.no_grad()
def move(model, adapter="default"):
    for name, parameter in model.named_parameters():
        if f".{adapter}" in name:
            parameter.add_(torch.randn_like(parameter))
    return model


def image():
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def value(model, operation, container):
    return getattr(model.base_model.model.get_submodule(operation), container)["default"]


def test_bitfit_is_the_network_with_other_biases():
    model, expected = adapted("bitfit"), network()
    with torch.no_grad():
        for operation in OPERATIONS:
            expected.get_submodule(operation).bias += value(model, operation, "bitfit_bias")
    # five operations on values below 100 in float32
    torch.testing.assert_close(model(image()), expected(image()), rtol=1e-4, atol=1e-4)
    assert {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad} == {"bitfit_bias"}


def test_ssf_is_the_network_with_scaled_weights_and_shifted_biases():
    """Section 3.3 of the paper: scale and shift can be absorbed by the operation in front of them."""
    model, expected = adapted("ssf"), network()
    with torch.no_grad():
        for operation in OPERATIONS:
            module = expected.get_submodule(operation)
            scale, shift = (value(model, operation, name) for name in ("ssf_scale", "ssf_shift"))
            axis = 1 if isinstance(module, nn.ConvTranspose2d) else 0  # of the output channels
            module.weight *= scale.view([-1 if i == axis else 1 for i in range(module.weight.dim())])
            module.bias *= scale
            module.bias += shift
    torch.testing.assert_close(model(image()), expected(image()), rtol=1e-4, atol=1e-4)


def test_ssf_needs_no_bias():
    module = nn.Sequential(nn.Conv2d(2, 4, 1, bias=False))
    model = get_peft_model(module, SSFConfig(target_modules=["0"]))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 8
    with pytest.raises(ValueError, match="BitFit tunes biases, and a Conv2d among its targets has none"):
        get_peft_model(
            nn.Sequential(nn.Linear(2, 2), nn.Conv2d(2, 4, 1, bias=False)), BitFitConfig(target_modules=["1"])
        )


def test_the_bottleneck_adapter_adds_a_small_network_behind_the_layer():
    torch.manual_seed(0)
    linear = nn.Linear(5, 7)
    model = get_peft_model(nn.Sequential(linear), HoulsbyConfig(target_modules=["0"], r=2))
    move(model)
    layer = model.base_model.model[0]
    down, up = layer.houlsby_down["default"], layer.houlsby_up["default"]
    x = torch.randn(3, 4, 5)
    y = linear(x)
    want = y + F.linear(F.gelu(F.linear(y, down.weight, down.bias)), up.weight, up.bias)
    torch.testing.assert_close(model(x), want)
    assert down.weight.shape == (2, 7) and up.weight.shape == (7, 2)


@pytest.mark.parametrize("method", CONFIGS)
def test_it_starts_at_the_base_model_and_can_be_switched_off(method):
    want = network()(image())
    assert torch.equal(adapted(method, trained=False)(image()), want)
    model = adapted(method)
    assert not torch.allclose(model(image()), want)
    with model.disable_adapter():
        assert torch.equal(model(image()), want)
    assert torch.equal(model.unload()(image()), want)


@pytest.mark.parametrize("method", CONFIGS)
def test_it_is_dropped_with_the_modules_that_were_trained_whole(method):
    torch.manual_seed(0)
    modules = nn.ModuleDict({"linear": nn.Linear(2, 2), "head": nn.Sequential(nn.Linear(2, 2))})
    names = set(dict(modules.named_modules()))
    model = get_peft_model(modules, CONFIGS[method](target_modules=["linear"], modules_to_save=["head"]))
    assert set(dict(model.unload().named_modules())) == names


@pytest.mark.parametrize("method", CONFIGS)
def test_a_saved_adapter_loads_to_the_same_answer(method, tmp_path):
    model = adapted(method)
    model.save_pretrained(tmp_path)
    assert torch.equal(PeftModel.from_pretrained(network(), tmp_path)(image()), model(image()))
    assert type(PeftConfig.from_pretrained(tmp_path)) is CONFIGS[method]


@pytest.mark.parametrize("method", CONFIGS)
def test_two_adapters_switch_work_together_and_delete(method):
    model = adapted(method)
    first = model(image())
    model.add_adapter("second", copy.deepcopy(model.peft_config["default"]))
    assert torch.equal(model(image()), first)
    move(model, "second")
    model.set_adapter("second")
    second = model(image())
    assert {name for name, p in model.named_parameters() if p.requires_grad and ".default" in name} == set()
    model.base_model.set_adapter(["default", "second"])
    both = model(image())
    assert len({float(answer.sum()) for answer in (first, second, both)}) == 3
    model.set_adapter("default")
    model.delete_adapter("second")
    assert torch.equal(model(image()), first)
    assert not any("second" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("method", CONFIGS)
def test_a_low_precision_base_keeps_its_format_and_the_adapter_trains_in_float32(method):
    config = CONFIGS[method](target_modules=["linear"])
    model = get_peft_model(network().bfloat16(), config)
    output = model(image().bfloat16())
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("method", CONFIGS)
def test_merging_is_refused_and_wrong_modules_too(method):
    with pytest.raises(ValueError, match="stays beside the base weights"):
        adapted(method).merge_and_unload()
    with pytest.raises(ValueError, match=r"wraps .*Linear.*, but 1 is a ReLU"):
        get_peft_model(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), CONFIGS[method](target_modules=["1"]))


def test_a_bottleneck_without_width_is_refused():
    with pytest.raises(ValueError, match="r=0 must be an integer of at least 1"):
        HoulsbyConfig(r=0)


def test_only_the_chosen_blocks_are_wrapped():
    blocks = nn.ModuleList(nn.ModuleDict({"lin": nn.Linear(2, 2)}) for _ in range(3))
    model = get_peft_model(
        nn.ModuleDict({"encoder": nn.ModuleDict({"layers": blocks})}),
        SSFConfig(target_modules=["lin"], layers_to_transform=[1]),
    )
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        f"base_model.model.encoder.layers.1.lin.ssf_{kind}.default" for kind in ("scale", "shift")
    }
