import json
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from safetensors import safe_open
from torch import nn

import convlora
from convlora import ConvLoraConfig

FIXTURE = Path(__file__).parents[1] / "fixtures" / "conv_lora_layer.safetensors"
TOLERANCE = 1e-5  # against float32 of the released code, whose bicubic coordinates are themselves rounded
CASES = ("windows_14", "windows_14_train", "global_32", "rect_9x13", "tokens_3d")


class Block(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.attn = nn.Module()
        self.attn.qkv = base

    def forward(self, x):
        return self.attn.qkv(x)


def load(name):
    with safe_open(FIXTURE, "pt") as file:
        case = json.loads(file.metadata()["cases"])[name]
        tensors = {key.split("/", 1)[1]: file.get_tensor(key) for key in file.keys() if key.split("/")[0] == name}  # noqa: SIM118
    return case, tensors


def build(case, tensors):
    base = nn.Linear(case["shape"][-1], case["out_features"])
    base.load_state_dict({"weight": tensors["param.weight"], "bias": tensors["param.bias"]})
    config = ConvLoraConfig(
        r=case["r"], lora_alpha=case["lora_alpha"], num_experts=case["num_experts"], target_modules=["qkv"]
    )
    return get_peft_model(Block(base), config).train(case["training"])


def released(tensors):
    return {
        f"model.attn.qkv.{key.removeprefix('param.')}": value
        for key, value in tensors.items()
        if key.startswith("param.lora")
    }


@pytest.mark.parametrize("name", CASES)
def test_output_balance_loss_and_every_gradient_match_the_released_layer(name, monkeypatch):
    case, tensors = load(name)
    model = build(case, tensors)
    convlora.load_released_state_dict(model, released(tensors))
    if case["training"]:
        monkeypatch.setattr(torch, "randn_like", lambda like: tensors["gate_noise"])
    x = tensors["x"].clone().requires_grad_()
    y = model(x)
    balance = convlora.balance_loss(model)
    ((y * tensors["grad_y"]).sum() + balance).backward()

    layer = model.base_model.model.attn.qkv
    assert torch.equal(layer.routing["default"].index, tensors["expert_index"])
    torch.testing.assert_close(y, tensors["y"], rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(balance, tensors["balance_loss"].squeeze(), rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(x.grad, tensors["grad_x"], rtol=TOLERANCE, atol=TOLERANCE)
    gradients = {
        "lora_A": layer.lora_A["default"].weight.grad,
        "lora_B": layer.lora_B["default"].weight.grad,
        "lora_moe_gating.w_gate": layer.lora_gate["default"].grad,
        "lora_moe_gating.w_noise": layer.lora_noise["default"].grad,
    }
    for i in range(case["num_experts"]):
        gradients[f"lora_moe_experts.{i}.0.weight"] = layer.lora_expert_weight["default"].grad[i]
        gradients[f"lora_moe_experts.{i}.0.bias"] = layer.lora_expert_bias["default"].grad[i]
    for key, mine in gradients.items():
        theirs = tensors.get(f"grad.{key}")
        if theirs is None:  # the released code leaves unused experts without a gradient
            assert mine is None or mine.abs().max() == 0, key
        elif mine is None:  # evaluation: ours takes the hard load, which has no gradient; theirs recorded zeros
            assert theirs.abs().max() == 0, key
        else:
            # sums over thousands of terms of size ~1: compare relative to the largest entry
            scale = max(theirs.abs().max().item(), 1.0)
            torch.testing.assert_close(
                mine / scale, theirs / scale, rtol=0, atol=TOLERANCE, msg=lambda m, k=key: f"{k}: {m}"
            )


def test_a_missing_an_extra_and_a_misshaped_tensor_are_named_and_nothing_is_copied():
    case, tensors = load("tokens_3d")
    model = build(case, tensors)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = released(tensors)
    state.pop("model.attn.qkv.lora_A")
    state["model.attn.qkv.lora_C"] = torch.zeros(1)
    state["model.attn.qkv.lora_B"] = torch.zeros(1, 1)
    with pytest.raises(
        ValueError, match=r"missing: attn.qkv.lora_A; not used: attn.qkv.lora_C; attn.qkv.lora_B has shape"
    ):
        convlora.load_released_state_dict(model, state)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_an_unknown_adapter_name_is_refused():
    case, tensors = load("tokens_3d")
    with pytest.raises(ValueError, match="no Conv-LoRA layer with an adapter named 'other'"):
        convlora.load_released_state_dict(build(case, tensors), released(tensors), adapter_name="other")


def test_the_gate_of_a_released_model_with_one_expert_is_accepted_and_chooses_nothing():
    base = nn.Linear(6, 9)
    model = get_peft_model(Block(base), ConvLoraConfig(r=2, num_experts=1, target_modules=["qkv"]))
    tensors = {
        "lora_A": torch.ones(2, 6),
        "lora_B": torch.ones(9, 2),
        "lora_moe_gating.w_gate": torch.ones(2, 1),
        "lora_moe_gating.w_noise": torch.ones(2, 1),
        "lora_moe_experts.0.0.weight": torch.ones(2, 2, 3, 3),
        "lora_moe_experts.0.0.bias": torch.ones(2),
    }
    convlora.load_released_state_dict(model, {f"attn.qkv.{name}": value for name, value in tensors.items()})
    assert model.base_model.model.attn.qkv.lora_expert_weight["default"].eq(1).all()
