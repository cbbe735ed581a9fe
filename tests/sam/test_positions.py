import copy
from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model

from convlora import ConvLoraConfig, SamForSemanticSegmentation
from convlora.adapter import ConvLoraLinear, load_adapter, save_adapter
from convlora.errors import SettingsError
from convlora.sam.positions import mark_image_grid, resize_positions
from convlora.sam.tiny_vit import TinyVitConfig, TinyVitEncoder
from tests.adapter.models import randomise
from tests.sam.models import small_sam


def test_the_learned_size_stays_as_it_is_bit_for_bit():
    sam = small_sam()
    before = copy.deepcopy(sam.state_dict())
    resize_positions(sam, 64)
    assert all(torch.equal(value, before[name]) for name, value in sam.state_dict().items())


@pytest.mark.parametrize("size", [8, 32, 96, 104, 128])
def test_another_size_works_from_pixels_to_masks_with_and_without_prompts(size):
    sam = small_sam()
    resize_positions(sam, size)
    with torch.no_grad():
        out = sam(pixel_values=torch.randn(1, 3, size, size), input_points=torch.tensor([[[[3.0, 4.0]]]]))
    assert out.pred_masks.shape[-2:] == (size // 8 * 4, size // 8 * 4)
    model = SamForSemanticSegmentation.from_sam(small_sam(), image_size=size)
    assert model.config.vision_config.image_size == size
    model(torch.randn(1, 3, size, size), labels=torch.ones(1, size, size, dtype=torch.long)).loss.backward()


def test_positions_keep_their_place_in_the_picture():
    sam = small_sam()
    ramp = torch.linspace(0, 1, 17)[:-1][::2] + 1 / 16  # value = relative place of the middle of each token
    with torch.no_grad():
        sam.vision_encoder.pos_embed.copy_(ramp[None, :, None, None].expand(1, 8, 8, 24))
    resize_positions(sam, 128)
    middles = (torch.arange(16) + 0.5) / 16
    got = sam.vision_encoder.pos_embed[0, :, 0, 0]
    assert (got - middles).abs()[2:-2].max() < 0.01  # borders are clamped


@pytest.mark.parametrize("size", [32, 128])
def test_relative_positions_keep_zero_in_the_middle_and_are_stretched_with_the_grid(size):
    sam = small_sam()
    layer = next(layer for layer in sam.vision_encoder.layers if layer.window_size == 0)
    windowed = next(layer for layer in sam.vision_encoder.layers if layer.window_size)
    before = windowed.attn.rel_pos_h.clone()
    with torch.no_grad():
        layer.attn.rel_pos_h.copy_(torch.arange(-7.0, 8.0)[:, None].expand(15, 12))
    resize_positions(sam, size)
    side = size // 8
    table = layer.attn.rel_pos_h[:, 0].detach()
    assert table.shape == (2 * side - 1,) and table[side - 1] == 0
    assert torch.allclose(table, -table.flip(0), atol=1e-5)
    assert float(table[side] - table[side - 1]) == pytest.approx(15 / (2 * side - 1), rel=1e-4)
    assert torch.equal(windowed.attn.rel_pos_h, before)


def test_an_equal_picture_gives_a_similar_embedding_at_three_quarters_of_the_size():
    model = SamForSemanticSegmentation.from_pretrained("sam-tiny").eval()
    smaller = SamForSemanticSegmentation.from_pretrained("sam-tiny", image_size=384).eval()
    torch.manual_seed(0)
    coarse = torch.randn(1, 3, 12, 12)
    embeddings = []
    with torch.no_grad():
        for segmenter, size in ((model, 512), (smaller, 384)):
            picture = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
            embedding = segmenter.sam.vision_encoder(picture).last_hidden_state
            embeddings.append(torch.nn.functional.interpolate(embedding, (16, 16), mode="area"))
    similarity = torch.nn.functional.cosine_similarity(*embeddings, dim=1).mean()
    assert similarity > 0.935, similarity  # measured: 0.949; with positions cut out instead of interpolated 0.922


@pytest.mark.parametrize("size", [0, -8, 7, 60, 1])
def test_a_size_that_is_no_multiple_of_the_patch_is_refused(size):
    with pytest.raises(SettingsError, match=rf"image_size={size} must be a multiple of the patch, 8 pixels, such as"):
        SamForSemanticSegmentation.from_sam(small_sam(), image_size=size)


def test_a_saved_segmenter_of_another_size_loads_with_it(tmp_path):
    small_sam().save_pretrained(tmp_path / "sam")
    model = SamForSemanticSegmentation.from_pretrained(tmp_path / "sam", image_size=96).eval()
    model.save_pretrained(tmp_path / "ours")
    loaded = SamForSemanticSegmentation.from_pretrained(tmp_path / "ours").eval()
    pixels = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(loaded(pixels).logits, model(pixels).logits)
    assert SamForSemanticSegmentation.from_pretrained(tmp_path / "ours", image_size=64)(torch.randn(1, 3, 64, 64))


def grids_seen(encoder, size):
    """Grid of the (b, h, w, c) tokens that each block gets, and what its linear layers were told."""
    seen, layers = [], encoder.layers
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[1:3]))) for layer in layers
    ]
    with torch.no_grad():
        encoder(torch.randn(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    told = [{m.image_grid for m in layer.modules() if isinstance(m, torch.nn.Linear)} for layer in layers]
    return seen, told


@pytest.mark.parametrize("size", [None, 104])
def test_every_linear_layer_of_the_encoder_knows_the_grid_of_the_image(size, tmp_path):
    model = SamForSemanticSegmentation.from_sam(small_sam(), image_size=size)
    model.save_pretrained(tmp_path)
    for one, side in ((model, size or 64), (SamForSemanticSegmentation.from_pretrained(tmp_path, image_size=32), 32)):
        seen, told = grids_seen(one.sam.vision_encoder, side)
        assert told == [{grid} for grid in seen] == [{(side // 8, side // 8)}] * 2


def test_tiny_vit_knows_the_grid_of_each_stage():
    encoder = TinyVitEncoder(TinyVitConfig(image_size=96, hidden_sizes=(8, 8, 16, 24), num_attention_heads=(1, 2, 3)))
    sam = SimpleNamespace(vision_encoder=encoder, config=SimpleNamespace(vision_config=encoder.config))
    mark_image_grid(sam)
    seen, told = grids_seen(encoder, 96)
    assert told == [{grid} for grid in seen]
    assert len(set(seen)) > 1


def test_conv_lora_over_the_whole_image_needs_no_help_with_sam(tmp_path):
    base = SamForSemanticSegmentation.from_sam(small_sam())
    model = get_peft_model(base, ConvLoraConfig(context="image", modules_to_save=["mask_decoder"])).eval()
    randomise(model)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        want = model(pixel_values=pixels).logits
    layers = [module for module in model.modules() if isinstance(module, ConvLoraLinear)]
    assert [len(layer.routing["default"].index) for layer in layers] == [2, 2]  # not one for each of 9 windows
    save_adapter(model, tmp_path, metadata={})
    loaded = load_adapter(SamForSemanticSegmentation.from_sam(small_sam()), tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(pixel_values=pixels).logits, want, rtol=1e-5, atol=1e-4)
