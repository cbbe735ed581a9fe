import copy

import pytest
import torch
from torch import nn

import convlora
from convlora import ConvLoraConfig
from convlora.adapter import ConvLoraLinear
from tests.adapter import oracle
from tests.adapter.models import Vit, adapted


def layers(model):
    return [module for module in model.modules() if isinstance(module, ConvLoraLinear)]


def test_the_layer_is_the_equation_of_the_paper():
    model = adapted(r=3, lora_alpha=32).eval()
    layer = layers(model)[0]
    x = torch.randn(5, 6, 6, 12)
    with torch.no_grad():
        y = layer(x)
        pooled = (x @ layer.lora_A["default"].weight.T).mean((1, 2))
        index = (pooled @ layer.lora_gate["default"]).argmax(-1)
        want = oracle.layer(
            x,
            layer.base_layer,
            layer.lora_A["default"].weight,
            layer.lora_B["default"].weight,
            32 / 3,
            (layer.lora_expert_weight["default"], layer.lora_expert_bias["default"]),
            index,
        )
    assert len(index.unique()) > 1
    torch.testing.assert_close(
        y, want, rtol=1e-5, atol=1e-4
    )  # |y| up to 50, float32 sums of ~100 terms: 50·100·2⁻²⁴ ≈ 3e-4


@pytest.mark.parametrize("routing", ["balanced", "learned", "random", 1, 4])
@pytest.mark.parametrize("training", [False, True])
def test_at_initialisation_and_when_disabled_the_output_is_bit_equal_to_the_base(routing, training):
    torch.manual_seed(0)
    base = Vit()
    x = torch.randn(3, 5, 5, 12)
    want = copy.deepcopy(base)(x)
    model = adapted(trained=False, routing=routing).train(training)
    model.base_model.model.load_state_dict(base.state_dict(), strict=False)
    for mine, theirs in zip(layers(model), base.blocks, strict=True):
        mine.base_layer.load_state_dict(theirs["qkv"].state_dict())
    assert torch.equal(model(x), want)
    for layer in layers(model):
        nn.init.normal_(layer.lora_B["default"].weight)
    assert not torch.equal(model(x), want)
    with model.disable_adapter():
        assert torch.equal(model(x), want)


def test_tokens_in_a_list_equal_tokens_on_a_grid_and_prefix_tokens_bypass_the_experts():
    model = adapted(num_prefix_tokens=2, grid=(4, 6)).eval()
    layer = layers(model)[0]
    grid = torch.randn(3, 4, 6, 12)
    prefix = torch.randn(3, 2, 12)
    out = layer(torch.cat([prefix, grid.flatten(1, 2)], dim=1))
    torch.testing.assert_close(out[:, 2:], layer(grid).flatten(1, 2))
    plain = layer.base_layer(prefix) + layer.lora_B["default"](layer.lora_A["default"](prefix)) * (32 / 3)
    torch.testing.assert_close(out[:, :2], plain)


@pytest.mark.parametrize(
    ("tokens", "config"),
    [(7, {}), (16, {"num_prefix_tokens": 1}), (16, {"grid": (3, 5)}), (1, {"num_prefix_tokens": 1})],
)
def test_a_grid_that_cannot_be_inferred_is_an_error_that_says_how_to_give_it(tokens, config):
    with pytest.raises(ValueError, match=r"num_prefix_tokens=.*grid=\(height, width\).*set_token_grid"):
        adapted(**config)(torch.randn(2, tokens, 12))


def test_the_grid_can_change_between_batches_and_is_not_part_of_the_configuration():
    model = adapted().eval()
    convlora.set_token_grid(model, 2, 8)
    x = torch.randn(2, 2, 8, 12)
    torch.testing.assert_close(model(x.flatten(1, 2)).unflatten(1, (2, 8)), model(x))
    assert model.peft_config["default"].grid is None


@pytest.mark.parametrize("shape", [(12,), (4, 12), (1, 1, 2, 2, 12)])
def test_an_input_without_a_grid_is_refused(shape):
    with pytest.raises(ValueError, match=r"needs \(b, h, w, c\)"):
        adapted()(torch.randn(shape))


@pytest.mark.parametrize("config", [{"r": 1}, {"num_experts": 1}, {"r": 1, "num_experts": 1}])
@pytest.mark.parametrize("shape", [(0, 4, 4, 12), (1, 1, 1, 12), (2, 3, 7, 12), (0, 16, 12)])
@pytest.mark.parametrize("training", [False, True])
def test_small_and_empty_inputs_train(config, shape, training):
    model = adapted(**config).train(training)
    y = model(torch.randn(shape))
    (y.sum() + convlora.balance_loss(model)).backward()
    assert y.shape == (*shape[:-1], 2)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("routing", ["balanced", "learned"])
def test_one_expert_has_no_gate_and_trains(routing):
    model = adapted(num_experts=1, routing=routing).train()
    assert not any("lora_gate" in name or "lora_noise" in name for name, _ in model.named_parameters())
    (model(torch.randn(2, 4, 4, 12)).sum() + convlora.balance_loss(model)).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("routing", ["balanced", 3])
def test_low_precision_is_finite_and_near_the_float32_answer(dtype, autocast, routing):
    model = adapted(routing=routing).eval()
    x = torch.randn(4, 7, 7, 12)
    want = model(x)
    if autocast:
        with torch.autocast("cpu", dtype):
            got = model(x)
    else:
        got = copy.deepcopy(model).to(dtype)(x.to(dtype))
    assert got.dtype == dtype and got.isfinite().all()
    got.float().sum().backward()
    if routing == "balanced":
        return  # rounded tokens may rightly go to another expert
    # two blocks of 8-bit (bf16) or 11-bit (fp16) significands with sums over ~40 terms
    assert (got - want).abs().mean() / want.abs().mean() < (0.05 if dtype == torch.bfloat16 else 0.01)


def test_values_that_overflow_the_released_combination_stay_finite():
    model = adapted().half().eval()
    y = model((torch.randn(2, 4, 4, 12) * 30).half())  # exp() of the released code is infinite above 11.09
    assert y.isfinite().all()


@pytest.mark.parametrize("routing", ["balanced", "learned", 3])
def test_batch_mates_never_change_an_answer(routing):
    model = adapted(routing=routing).eval()
    x = torch.randn(6, 5, 5, 12)
    together = model(x)
    alone = torch.cat([model(x[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-5)  # matmul blocking may round differently


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_in_one_sample_does_not_change_the_others(bad):
    model = adapted().eval()
    x = torch.randn(4, 5, 5, 12)
    want = model(x)
    x[2, 1, 1, 0] = bad
    got = model(x)
    rest = [0, 1, 3]
    assert torch.equal(got[rest], want[rest])
    assert not got[2].isfinite().all()


def test_non_reentrant_checkpointing_keeps_the_balance_loss_and_every_gradient():
    gradients = []
    x = torch.randn(6, 5, 5, 12)
    for reentrant in (None, False):
        model = adapted()
        model.base_model.model.reentrant = reentrant
        torch.manual_seed(7)
        loss = model(x).square().mean() + convlora.balance_loss(model)
        loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
    assert any(gradient.abs().sum() > 0 for name, gradient in gradients[0].items() if "lora_gate" in name)


def test_a_recomputed_forward_pass_leaves_the_routing_of_the_first_one():
    model = adapted()
    model.base_model.model.reentrant = False
    loss = model(torch.randn(6, 5, 5, 12)).square().mean()
    first = [layer.routing["default"] for layer in layers(model)]
    (loss + convlora.balance_loss(model)).backward()
    # a routing of the recomputation would hold activations until the next forward pass
    assert all(layer.routing["default"] is routing for layer, routing in zip(layers(model), first, strict=True))


def test_reentrant_checkpointing_is_refused_with_the_reason():
    model = adapted()
    model.base_model.model.reentrant = True
    with pytest.raises(RuntimeError, match="the balance loss would be lost"):
        model(torch.randn(2, 4, 4, 12, requires_grad=True))


def test_a_forward_pass_in_training_mode_without_gradients_is_allowed():
    with torch.no_grad():
        adapted().train()(torch.randn(2, 4, 4, 12))


def test_merging_is_refused_with_the_reason():
    model = adapted()
    with pytest.raises(ValueError, match="cannot be merged into the base weights: its convolution experts"):
        model.merge_and_unload()
    with pytest.raises(ValueError, match="cannot be merged"):
        model.merge_adapter()


def test_unloading_gives_back_the_base_model():
    torch.manual_seed(0)
    base = Vit()
    x = torch.randn(2, 4, 4, 12)
    want = base(x)
    assert torch.equal(adapted().unload()(x), want)


def test_a_trained_model_can_be_copied_after_a_forward_pass():
    model = adapted()
    model(torch.randn(2, 4, 4, 12))
    copied = copy.deepcopy(model).eval()
    x = torch.randn(2, 4, 4, 12)
    assert torch.equal(copied(x), model.eval()(x))


def test_layers_other_than_linear_are_refused():
    with pytest.raises(ValueError, match=r"adapts nn\.Linear layers"):
        convlora.adapter.ConvLoraModel(
            nn.ModuleDict({"c": nn.Conv2d(3, 3, 1)}), ConvLoraConfig(target_modules=["c"]), "default"
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"routing": "balnced"}, "routing='balnced' must be one of balanced, learned, "),
        ({"routing": 0}, "routing=0"),
        ({"routing": True}, "routing=True"),
        ({"num_experts": 0}, "num_experts=0"),
        ({"grid": (3,)}, "grid="),
        ({"num_prefix_tokens": -1}, "num_prefix_tokens=-1"),
        ({"balance_weight": float("nan")}, "balance_weight=nan"),
        ({"use_dora": True}, "use_dora is not available"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' is not available"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match="ConvLoraConfig: .*" + message.replace("(", r"\(")):
        ConvLoraConfig(target_modules=["qkv"], **settings)


def test_all_wrong_settings_are_reported_at_once():
    with pytest.raises(ValueError, match=r"num_experts=0.*routing='x'.*grid="):
        ConvLoraConfig(num_experts=0, routing="x", grid=(0, 1))
