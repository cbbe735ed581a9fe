import pytest
import torch
from peft import get_peft_model

from convlora import ConvLoraConfig, SamForSemanticSegmentation, balance_loss
from tests.adapter.models import randomise
from tests.sam.models import small_sam


@pytest.mark.parametrize("config", [{}, {"context": "image"}, {"routing": "soft-token"}], ids=str)
@pytest.mark.parametrize("training", [False, True])
@torch._dynamo.config.patch(error_on_recompile=True)
def test_encoder_and_decoder_are_one_graph_that_fits_the_next_batch_too(training, config):
    torch._dynamo.reset()
    base = SamForSemanticSegmentation.from_sam(small_sam())
    model = get_peft_model(base, ConvLoraConfig(modules_to_save=["mask_decoder"], **config)).train(training)
    randomise(model)
    compiled = torch.compile(lambda pixels: model(pixel_values=pixels).logits, fullgraph=True, backend="aot_eager")
    for seed in (0, 1):
        pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
        got = compiled(pixels)
        if training:
            (got.square().mean() + balance_loss(model)).backward()
            assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        else:
            torch.testing.assert_close(got, model(pixel_values=pixels).logits, rtol=1e-4, atol=1e-4)
