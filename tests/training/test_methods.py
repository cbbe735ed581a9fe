import pytest
import torch

from convlora import SamForSemanticSegmentation
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


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="unknown method 'x'"):
        tuned("x")
