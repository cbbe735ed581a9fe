import json
import subprocess
import sys

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from transformers import Dinov2Config, Dinov2Model

from convlora import ConvLoraConfig
from tests.adapter.models import Vit, adapted, randomise


def vit():
    torch.manual_seed(0)
    return Vit()


@pytest.mark.parametrize("routing", ["balanced", "learned", "random", 5])
def test_a_saved_adapter_loads_to_the_same_answer(tmp_path, routing):
    model = adapted(routing=routing).eval()
    x = torch.randn(3, 4, 4, 12)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(vit(), tmp_path).eval()
    torch.manual_seed(1)
    want = model(x)
    torch.manual_seed(1)
    assert torch.equal(loaded(x), want)
    assert type(PeftConfig.from_pretrained(tmp_path)) is ConvLoraConfig
    assert loaded.peft_config["default"].routing == routing


def test_the_saved_folder_holds_the_adapter_only_and_its_card_shows_the_import(tmp_path):
    adapted().save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
    }
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "CONV_LORA"
    card = (tmp_path / "README.md").read_text()
    assert "import convlora.adapter" in card and card.count("import convlora.adapter") == 1


def test_without_the_import_loading_fails_loudly(tmp_path):
    adapted().save_pretrained(tmp_path)
    code = f"from peft import PeftConfig; PeftConfig.from_pretrained({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "CONV_LORA" in done.stderr


def test_two_adapters_switch_combine_and_delete():
    model = adapted().eval()
    x = torch.randn(3, 4, 4, 12)
    first = model(x)
    model.add_adapter("second", ConvLoraConfig(r=2, routing="learned", target_modules=["qkv"]))
    randomise(model, "second")
    assert torch.equal(model(x), first)
    model.set_adapter("second")
    second = model(x)
    assert not torch.equal(first, second)
    model.base_model.set_adapter(["default", "second"])
    assert not torch.equal(model(x), first) and not torch.equal(model(x), second)
    model.set_adapter("default")
    model.delete_adapter("second")
    assert torch.equal(model(x), first)
    assert not any("second" in name for name, _ in model.named_parameters())


def test_only_the_adapter_is_trainable_and_its_size_is_as_in_the_paper():
    model = adapted(width=10, r=3)
    trainable = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in trainable)
    # per layer: A + B, 8 experts of 3·3·9 + 3, and the gate's two 3 × 8 matrices
    assert sum(trainable.values()) == 2 * (3 * 10 + 3 * 30 + 672 + 48)


def test_adding_by_weight_and_mixed_batches_are_refused():
    model = adapted()
    with pytest.raises(ValueError, match="cannot be combined by weight"):
        model.add_weighted_adapter(["default"], [1.0], "new")
    with pytest.raises(ValueError, match="several adapters in one batch"):
        model.eval()(torch.randn(1, 4, 4, 12), adapter_names=["default"])


def test_it_adapts_a_vit_that_is_not_sam():
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7)
    base = Dinov2Model(config).eval()
    pixels = torch.randn(2, 3, 28, 28)
    want = base(pixels).last_hidden_state
    model = get_peft_model(base, ConvLoraConfig(num_prefix_tokens=1, target_modules=["q_proj", "v_proj"])).eval()
    assert torch.equal(model(pixels).last_hidden_state, want)
    randomise(model)
    assert not torch.allclose(model(pixels).last_hidden_state, want)
