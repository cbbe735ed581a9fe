import copy

import pytest
import torch
from peft import get_peft_model

from convlora import ConvLoraConfig, SamForSemanticSegmentation, balance_loss
from convlora.errors import SettingsError
from convlora.sam.precision import autocast, pick_device, resolve_precision, store_frozen
from tests.sam.models import small_sam

CPU = torch.device("cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta:x", ""])
def test_a_device_that_is_not_there_is_a_settings_error(device):
    with pytest.raises(SettingsError, match=r"is not available here.*Use auto or cpu"):
        pick_device(device)
    assert pick_device("auto").type in ("cpu", "cuda") and pick_device("cpu").type == "cpu"


@pytest.mark.parametrize(("native", "want"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_only_where_the_processor_has_it(monkeypatch, native, want):
    for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, check, lambda: native)
    assert resolve_precision("auto", CPU) == want
    assert resolve_precision("fp16", CPU) == "fp16"


@pytest.mark.parametrize(("supported", "want"), [(True, "bf16"), (False, "fp16")])
def test_auto_on_a_gpu_is_bf16_or_on_older_ones_fp16(monkeypatch, supported, want):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert resolve_precision("auto", torch.device("cuda")) == want


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_frozen_weights_in_low_precision_change_no_bit_of_a_training_step(precision):
    torch.manual_seed(0)
    base = SamForSemanticSegmentation.from_sam(small_sam())
    whole = get_peft_model(base, ConvLoraConfig(modules_to_save=["mask_decoder"])).train()
    for name, parameter in whole.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    half = copy.deepcopy(whole)
    store_frozen(half.get_base_model().sam.vision_encoder, precision)
    layer = half.get_base_model().sam.vision_encoder.layers[0]
    assert layer.mlp.lin1.weight.dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert layer.layer_norm1.weight.dtype == layer.attn.rel_pos_h.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in half.parameters() if p.requires_grad)
    pixels, labels = torch.randn(2, 3, 64, 64), torch.ones(2, 64, 64, dtype=torch.long)
    gradients = []
    for model in (whole, half):
        torch.manual_seed(1)
        with autocast(precision, CPU):
            loss = model(pixels, labels=labels).loss + balance_loss(model)
        loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_an_unknown_precision_is_refused():
    with pytest.raises(SettingsError, match="precision='bf61' must be one of auto, fp32, bf16, fp16"):
        resolve_precision("bf61", CPU)


def test_fp32_leaves_everything_as_it_is():
    sam = small_sam()
    store_frozen(sam.vision_encoder, "fp32")
    assert {p.dtype for p in sam.parameters()} == {torch.float32}
    with autocast("fp32", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
