import pytest
import torch
from torch.distributions import Normal

import convlora
from convlora.adapter.gate import Routing, route
from tests.adapter.models import adapted


def variation(values):
    values = torch.tensor(values, dtype=torch.float64)
    return (values.var(unbiased=True) / (values.mean() ** 2 + 1e-10)).item()


def test_the_load_is_the_probability_of_being_chosen_when_the_own_noise_is_redrawn(monkeypatch):
    torch.manual_seed(0)
    pooled, gate, noise = torch.randn(5, 3), torch.randn(3, 4), torch.randn(3, 4)
    drawn = torch.randn(5, 4)
    monkeypatch.setattr(torch, "randn_like", lambda like: drawn)
    routing = route(pooled, gate, noise, training=True)
    clean = pooled @ gate
    scale = torch.log1p((pooled @ noise).exp()) + 0.01
    noisy = clean + drawn * scale
    want = torch.zeros(4)
    for i in range(5):
        for e in range(4):
            others = torch.cat([noisy[i, :e], noisy[i, e + 1 :]])
            want[e] += Normal(0.0, 1.0).cdf((clean[i, e] - others.max()) / scale[i, e])
    torch.testing.assert_close(routing.load, want)
    assert torch.equal(routing.index, noisy.argmax(-1))


def test_the_balance_loss_is_zero_for_equal_shares_and_counts_in_evaluation():
    assert Routing(torch.tensor([0, 1, 2, 3]), 4).balance_loss() == 0
    assert Routing(torch.tensor([0, 0, 1, 2]), 4).balance_loss().item() == pytest.approx(2 * variation([2, 1, 1, 0]))


@pytest.mark.parametrize("weight", [0.01, 1.0])
def test_the_models_balance_loss_is_the_weighted_sum_over_its_layers(weight):
    model = adapted(balance_weight=weight).eval()
    model(torch.randn(16, 4, 4, 12))
    routings = [layer.routing["default"] for layer in model.modules() if hasattr(layer, "conv_lora")]
    counts = [torch.bincount(routing.index, minlength=8).tolist() for routing in routings]
    assert convlora.balance_loss(model).item() == pytest.approx(
        weight * sum(2 * variation(c) for c in counts), rel=1e-5
    )


@pytest.mark.parametrize("config", [{"routing": "random"}, {"routing": 2}, {"num_experts": 1}, {"balance_weight": 0.0}])
def test_there_is_no_balance_loss_where_nothing_is_balanced(config):
    model = adapted(**config)
    model(torch.randn(4, 4, 4, 12))
    assert convlora.balance_loss(model).item() == 0


def test_a_disabled_adapter_has_no_balance_loss():
    model = adapted()
    model(torch.randn(4, 4, 4, 12))
    with model.disable_adapter():
        assert convlora.balance_loss(model).item() == 0


def test_a_model_without_adapters_has_no_balance_loss():
    assert convlora.balance_loss(torch.nn.Linear(2, 2)).item() == 0


def gate_gradient(routing):
    torch.manual_seed(3)
    model = adapted(routing=routing)
    torch.manual_seed(4)
    model(torch.randn(8, 5, 5, 12)).square().sum().backward()
    return [p.grad for name, p in model.named_parameters() if "lora_gate" in name]


def test_the_released_gate_gets_no_gradient_from_the_task_and_the_learned_gate_does():
    assert all(gradient is None for gradient in gate_gradient("balanced"))
    assert all(gradient.abs().max() > 0 for gradient in gate_gradient("learned"))


def test_learned_routing_leaves_the_forward_pass_as_it_is():
    x = torch.randn(8, 5, 5, 12)
    outputs = []
    for routing in ("balanced", "learned"):
        model = adapted(routing=routing)
        torch.manual_seed(1)
        outputs.append(model(x))
    assert torch.equal(*outputs)


def test_the_learned_gates_gradient_is_the_gradient_of_the_log_probability():
    torch.manual_seed(0)
    logits = torch.randn(4, 3, requires_grad=True)
    index = torch.tensor([2, 0, 1, 1])
    Routing(index, 3, logits=logits).straight_through().sum().backward()
    want = torch.eye(3)[index] - logits.detach().softmax(-1)
    torch.testing.assert_close(logits.grad, want)


def test_a_learned_gate_finds_the_scale_that_each_kind_of_sample_needs():
    """Two kinds of sample, told apart by their mean, each with a target that only one frozen expert reaches."""
    torch.manual_seed(0)
    model = adapted(r=2, num_experts=2, routing="learned", width=4, balance_weight=0.0)
    layer = model.base_model.model.blocks[0]["qkv"]
    with torch.no_grad():
        layer.lora_expert_bias["default"].copy_(torch.tensor([[3.0, -6.0], [-6.0, 3.0]]))
        layer.lora_expert_weight["default"].zero_()
        layer.lora_gate["default"].zero_()
        layer.lora_noise["default"].zero_()
    kind = torch.arange(64) % 2
    x = torch.randn(64, 3, 3, 4) * 0.1 + torch.where(kind == 0, 1.0, -1.0)[:, None, None, None]
    target = torch.nn.functional.gelu(layer.lora_expert_bias["default"])[kind] @ layer.lora_B["default"].weight.T
    optimiser = torch.optim.Adam([layer.lora_gate["default"]], lr=0.05)
    frozen = (
        layer.base_layer(x) + layer.lora_B["default"](layer.lora_A["default"](x)) * layer.scaling["default"]
    ).detach()
    for _ in range(100):
        out = (layer(x) - frozen) / layer.scaling["default"]
        loss = (out - target[:, None, None].detach()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    layer.eval()
    layer(x)
    assert (layer.routing["default"].index == kind).float().mean() > 0.95


def test_random_routing_uses_every_expert_about_equally():
    model = adapted(routing="random", num_experts=4)
    model(torch.randn(4000, 1, 1, 12))
    layer = next(layer for layer in model.modules() if hasattr(layer, "conv_lora"))
    counts = torch.bincount(layer.routing["default"].index, minlength=4)
    assert counts.min() > 850  # 1000 ± 27 standard deviation
