import math

import pytest
import torch
import torch.nn.functional as F
from peft import get_peft_model
from transformers.models.sam.modeling_sam import SAM_VISION_ATTENTION_CLASSES

from convlora import SamForSemanticSegmentation
from convlora.adapter.attention import fused_attention
from convlora.adapter.baselines import VptConfig
from tests.adapter.baselines.segmenters import DECODER, SAM, huge, pixels, segmenter, tuned
from tests.sam.models import small_sam


def position_bias(attention, side):
    """Embeddings of the distance of every query to every key, for rows and for columns, each (n, n, d)."""
    places = [(i, j) for i in range(side) for j in range(side)]
    rows = torch.stack([torch.stack([attention.rel_pos_h[q[0] - k[0] + side - 1] for k in places]) for q in places])
    columns = torch.stack([torch.stack([attention.rel_pos_w[q[1] - k[1] + side - 1] for k in places]) for q in places])
    return rows, columns


def attend_with_prompts(attention, tokens, prompts):
    """Plain attention over a grid's tokens and the prompts, all of them queries and keys; (n + p, c)."""
    side = math.isqrt(len(tokens))
    n, c, heads = len(tokens), tokens.shape[-1], attention.num_attention_heads
    every = torch.cat([tokens, prompts])
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(0, 1) for part in attention.qkv(every).chunk(3, -1))
    scores = query @ key.transpose(-1, -2) / math.sqrt(c // heads)
    rows, columns = position_bias(attention, side)
    scores[:, :n, :n] += torch.einsum("hqd,qkd->hqk", query[:, :n], rows + columns)
    return attention.proj((scores.softmax(-1) @ value).transpose(0, 1).flatten(1))


def block_with_prompts(block, x, prompts):
    """Deep VPT as the paper writes it: prompts go through the block as tokens do, and are dropped behind it."""
    height, width, c = x.shape
    window = block.window_size or height
    padded = F.pad(block.layer_norm1(x), (0, 0, 0, -width % window, 0, -height % window))
    normalised = block.layer_norm1(prompts)
    attended = torch.zeros_like(padded)
    for i in range(0, padded.shape[0], window):
        for j in range(0, padded.shape[1], window):
            tokens = padded[i : i + window, j : j + window].reshape(-1, c)
            out = attend_with_prompts(block.attn, tokens, normalised)[: len(tokens)]
            attended[i : i + window, j : j + window] = out.view(window, window, c)
    x = x + attended[:height, :width]
    return x + block.mlp(block.layer_norm2(x))


@pytest.mark.parametrize("implementation", ["fused", "sdpa", "eager"])
def test_prompts_are_tokens_that_every_window_sees(implementation):
    base = small_sam()
    if implementation != "fused":
        for layer in base.vision_encoder.layers:
            layer.attn.__class__ = SAM_VISION_ATTENTION_CLASSES[implementation]
    base = SamForSemanticSegmentation.from_sam(base, fused_attention=implementation == "fused").eval()
    plain = segmenter().sam.vision_encoder
    model = get_peft_model(base, VptConfig(num_prompts=3)).eval()
    encoder = model.get_base_model().sam.vision_encoder
    prompts = []
    with torch.no_grad():
        for layer in encoder.layers:
            layer.attn.vpt_prompts["default"].normal_()
            prompts.append(layer.attn.vpt_prompts["default"])
        got = encoder(pixels()).last_hidden_state
        states = plain.patch_embed(pixels()) + plain.pos_embed
        for block, own in zip(plain.layers, prompts, strict=True):
            states = torch.stack([block_with_prompts(block, x, own) for x in states])
        torch.testing.assert_close(got, plain.neck(states), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(got, plain(pixels()).last_hidden_state, rtol=1e-2, atol=1e-2)


def test_active_adapters_put_their_prompts_together():
    model = tuned(VptConfig(num_prompts=2))
    model.add_adapter("second", VptConfig(num_prompts=1, modules_to_save=["mask_decoder"]))
    attention = model.get_base_model().sam.vision_encoder.layers[0].attn
    attention.set_adapter(["default", "second"])
    both = torch.cat([attention.vpt_prompts["default"], attention.vpt_prompts["second"]])
    x = torch.randn(4, 3, 3, 24)
    with torch.no_grad():
        want = fused_attention(attention.base_layer, x, attention.norm[0](both))
        assert torch.equal(attention(x)[0], want)


def test_only_the_chosen_blocks_get_prompts():
    model = tuned(VptConfig(layers_to_transform=[1]))
    assert [hasattr(layer.attn, "vpt_prompts") for layer in model.get_base_model().sam.vision_encoder.layers] == [
        False,
        True,
    ]


def test_prompts_start_uniform_as_in_the_papers_code():
    model = tuned(VptConfig(num_prompts=200), trained=False)
    prompts = model.get_base_model().sam.vision_encoder.layers[0].attn.vpt_prompts["default"]
    bound = math.sqrt(6 / (3 * 16 * 16 + 24))
    assert prompts.abs().max() <= bound
    # standard deviation of the uniform distribution, from 4,800 draws: relative error about 1 / (2 √4800) < 1 %
    assert prompts.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)


def test_the_default_trains_the_papers_share_of_vit_h():
    trained, total = huge(VptConfig())
    assert total == SAM
    assert trained == DECODER + 32 * 12 * 1280 == 3_997_056
    assert f"{trained / total:.2%}" == "0.62%"
    shares = {n: f"{(DECODER + 32 * n * 1280) / total:.2%}" for n in (10, 11, 13)}
    assert shares == {10: "0.61%", 11: "0.62%", 13: "0.63%"}


def test_no_prompts_are_refused():
    with pytest.raises(ValueError, match="num_prompts=0 must be an integer of at least 1"):
        VptConfig(num_prompts=0)
