import copy

import pytest
import torch
from peft import get_peft_model
from transformers.models.sam.modeling_sam import SamVisionAttention

from convlora import ConvLoraConfig, SamForSemanticSegmentation, balance_loss
from convlora.sam.attention import SamVisionFusedAttention, use_fused_attention
from tests.sam.models import small_config, small_sam


def layer(window, dtype=torch.float32, size=64):
    torch.manual_seed(0)
    attention = SamVisionAttention(small_config(size=size).vision_config, window).to(dtype)
    with torch.no_grad():
        for parameter in attention.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    fused = copy.deepcopy(attention)
    use_fused_attention(fused)
    assert type(fused) is SamVisionFusedAttention
    return attention, fused


@pytest.mark.parametrize(("window", "side"), [(3, 3), (5, 5), (0, 8)])
def test_output_and_every_gradient_are_those_of_the_eager_layer(window, side):
    outputs, gradients = [], []
    for attention in layer(window, torch.float64):
        x = torch.randn(4, side, side, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        x.requires_grad_()
        # the eager layer computes its softmax in float32 whatever the input, hence 1e-5 and not 1e-12
        y = attention(x)[0]
        y.square().sum().backward()
        outputs.append(y.detach())
        gradients.append({"x": x.grad, **{name: p.grad for name, p in attention.named_parameters()}})
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
    for name, gradient in gradients[0].items():
        error = (gradients[1][name] - gradient).abs().max() / gradient.abs().max()
        assert error < 1e-5, name


def test_a_grid_that_is_not_square_equals_the_eager_layer():
    eager, fused = layer(5)
    with torch.no_grad():
        eager.rel_pos_w = fused.rel_pos_w = torch.nn.Parameter(torch.randn(2 * 3 - 1, 12))
        x = torch.randn(2, 5, 3, 24)
        torch.testing.assert_close(fused(x)[0], eager(x)[0], rtol=1e-5, atol=1e-5)


def test_a_table_of_another_length_is_interpolated_as_the_eager_layer_does():
    eager, fused = layer(0)
    with torch.no_grad():
        x = torch.randn(2, 5, 5, 24)  # the tables are those of an 8 × 8 grid
        torch.testing.assert_close(fused(x)[0], eager(x)[0], rtol=1e-5, atol=1e-5)


def test_no_tensor_of_scores_is_made():
    _, fused = layer(0)
    sizes = []

    class Record(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in (out if isinstance(out, tuple | list) else [out]) if torch.is_tensor(t))
            return out

    with Record(), torch.no_grad():
        fused(torch.randn(2, 8, 8, 24))
    assert max(sizes) < 2 * 2 * 64 * 64  # images · heads · queries · keys


def test_a_whole_sam_gives_the_same_masks_with_prompts_and_without():
    sam = small_sam()
    fused = copy.deepcopy(sam)
    use_fused_attention(fused)
    pixels = torch.randn(2, 3, 64, 64)
    points = torch.tensor([[[[20.0, 30.0]]], [[[5.0, 60.0]]]])
    with torch.no_grad():
        for arguments in ({}, {"input_points": points}):
            want, got = (model(pixel_values=pixels, **arguments) for model in (sam, fused))
            torch.testing.assert_close(got.pred_masks, want.pred_masks, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(got.iou_scores, want.iou_scores, rtol=1e-5, atol=1e-5)


def test_a_training_step_with_adapters_gives_the_eager_gradients():
    gradients = []
    for implementation in ("eager", "fused"):
        torch.manual_seed(0)
        model = SamForSemanticSegmentation.from_sam(small_sam())
        if implementation == "eager":
            for module in model.modules():
                if type(module) is SamVisionFusedAttention:
                    module.__class__ = SamVisionAttention
        model = get_peft_model(model, ConvLoraConfig(modules_to_save=["mask_decoder"])).train()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        torch.manual_seed(1)
        loss = model(torch.randn(2, 3, 64, 64), labels=torch.ones(2, 64, 64, dtype=torch.long)).loss
        (loss + balance_loss(model)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_finite_and_near(dtype):
    eager, fused = layer(0)
    x = torch.randn(2, 8, 8, 24)
    with torch.no_grad():
        want = eager(x)[0]
        got = fused.to(dtype)(x.to(dtype))[0].float()
    # 8-bit (bf16) or 11-bit (fp16) significands through qkv, scores and proj
    assert (got - want).abs().mean() / want.abs().mean() < (0.05 if dtype == torch.bfloat16 else 0.01)


def test_the_segmenter_uses_it_unless_another_attention_is_asked_for(tmp_path):
    small_sam().save_pretrained(tmp_path)
    kinds = {}
    for asked in (None, "eager", "sdpa"):
        arguments = {} if asked is None else {"attn_implementation": asked}
        model = SamForSemanticSegmentation.from_pretrained(tmp_path, **arguments)
        kinds[asked] = type(model.sam.vision_encoder.layers[0].attn).__name__
    assert kinds == {None: "SamVisionFusedAttention", "eager": "SamVisionAttention", "sdpa": "SamVisionSdpaAttention"}
