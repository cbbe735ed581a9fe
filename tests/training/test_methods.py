import pytest
import torch

from convlora import SamForSemanticSegmentation
from convlora.errors import SettingsError
from convlora.training.methods import apply_method, count_parameters
from convlora.training.settings import METHODS, AdapterSettings
from tests.sam.models import small_sam


def tuned(method):
    return apply_method(SamForSemanticSegmentation.from_sam(small_sam()), method, AdapterSettings())


@pytest.mark.parametrize("method", METHODS)
def test_each_method_trains_what_it_says_and_starts_as_the_base(method):
    base = SamForSemanticSegmentation.from_sam(small_sam()).eval()
    decoder = sum(p.numel() for p in base.sam.mask_decoder.parameters())
    encoder = sum(p.numel() for p in base.sam.vision_encoder.parameters())
    model = tuned(method).eval()
    # A and B of the fused qkv (24 -> 72) in two blocks; Conv-LoRA adds 8 experts and the gate's two matrices
    lora = 2 * (3 * 24 + 3 * 72)
    want = {
        "decoder": decoder,
        "full": decoder + encoder,
        "lora": decoder + lora,
        "conv-lora": decoder + lora + 2 * (672 + 48),
    }[method]
    trainable, total = count_parameters(model)
    assert trainable == want
    assert total >= sum(p.numel() for p in base.parameters())
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels).logits, base(pixels).logits, rtol=0, atol=0)


@pytest.mark.parametrize(("blocks", "adapted"), [(1, [1]), (2, [0, 1]), ([0], [0]), ([1, 0], [0, 1])])
@pytest.mark.parametrize("method", ["lora", "conv-lora"])
def test_only_the_chosen_blocks_are_adapted(method, blocks, adapted):
    base = SamForSemanticSegmentation.from_sam(small_sam())
    model = apply_method(base, method, AdapterSettings(blocks=blocks))
    layers = model.get_base_model().sam.vision_encoder.layers
    assert [i for i, layer in enumerate(layers) if hasattr(layer.attn.qkv, "lora_A")] == adapted
    model(torch.randn(1, 3, 64, 64)).logits.sum().backward()


def test_blocks_before_the_first_adapter_run_without_a_graph():
    base = SamForSemanticSegmentation.from_sam(small_sam())
    model = apply_method(base, "conv-lora", AdapterSettings(blocks=1))
    outputs = []
    for layer in model.get_base_model().sam.vision_encoder.layers:
        layer.register_forward_hook(lambda module, inputs, output: outputs.append(output.requires_grad))
    model(torch.randn(1, 3, 64, 64))
    assert outputs == [False, True]


@pytest.mark.parametrize("blocks", [0, 3, [2], [], [-1]])
def test_blocks_that_are_not_there_are_refused(blocks):
    with pytest.raises(SettingsError, match=r"this encoder has 2 blocks"):
        apply_method(SamForSemanticSegmentation.from_sam(small_sam()), "lora", AdapterSettings(blocks=blocks))


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="unknown method 'x'"):
        tuned("x")
