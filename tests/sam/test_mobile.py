import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForSemanticSegmentation, SamModel

from convlora import ConvLoraConfig, SamForSemanticSegmentation
from convlora.adapter import ConvLoraLinear, balance_loss
from convlora.errors import SettingsError
from convlora.sam import SamSegmentationImageProcessor
from convlora.sam.mobile import MobileSamConfig, MobileSamModel, sam_class
from convlora.sam.precision import autocast, store_frozen
from convlora.sam.prefix import encode_prefix, encode_rest, frozen_blocks
from convlora.sam.tiny_vit import TinyVitConfig
from convlora.training.methods import apply_method
from convlora.training.settings import AdapterSettings
from tests.sam.mobile import small_mobile_sam
from tests.sam.models import small_sam


def tuned(method="conv-lora", size=64, **adapter):
    base = SamForSemanticSegmentation.from_sam(small_mobile_sam(), image_size=size)
    return apply_method(base, method, AdapterSettings(**adapter))


@pytest.fixture
def checkpoint(tmp_path):
    small_mobile_sam().save_pretrained(tmp_path / "mobile")
    return tmp_path / "mobile"


def test_a_mobile_sam_folder_loads_as_mobile_sam(checkpoint):
    config = AutoConfig.from_pretrained(checkpoint)
    assert type(config) is MobileSamConfig
    assert sam_class(config) is MobileSamModel
    assert sam_class(small_sam().config) is SamModel
    assert SamSegmentationImageProcessor.from_sam(checkpoint).size == 64
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        want = small_mobile_sam().vision_encoder(pixels).last_hidden_state
        loaded = SamForSemanticSegmentation.from_pretrained(checkpoint).eval()
        assert torch.equal(loaded.sam.vision_encoder(pixels).last_hidden_state, want)


@pytest.mark.parametrize("id2label", [None, {0: "background", 1: "leaf", 2: "stem"}])
def test_a_saved_segmenter_loads_to_the_same_answer_also_through_the_auto_class(checkpoint, tmp_path, id2label):
    model = SamForSemanticSegmentation.from_pretrained(checkpoint, id2label=id2label).eval()
    model.save_pretrained(tmp_path / "ours")
    pixels = torch.randn(2, 3, 64, 64)
    for loader in (SamForSemanticSegmentation, AutoModelForSemanticSegmentation):
        loaded = loader.from_pretrained(tmp_path / "ours").eval()
        assert type(loaded.config.vision_config) is TinyVitConfig
        assert torch.equal(loaded(pixels).logits, model(pixels).logits)


@pytest.mark.parametrize("size", [48, 64, 112, 256])
def test_any_multiple_of_16_pixels_works_and_keeps_the_weights(checkpoint, size):
    model = SamForSemanticSegmentation.from_pretrained(checkpoint, image_size=size).eval()
    assert model(torch.randn(1, 3, size, size)).logits.shape == (1, 1, size // 4, size // 4)
    own = small_mobile_sam().vision_encoder.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in model.sam.vision_encoder.state_dict().items())
    with pytest.raises(ValueError, match=f"takes \\({size}, {size}\\)"):
        model(torch.randn(1, 3, size + 16, size + 16))


def test_a_size_between_patches_is_refused(checkpoint):
    with pytest.raises(SettingsError, match=r"image_size=72 must be a multiple of the patch, 16 pixels"):
        SamForSemanticSegmentation.from_pretrained(checkpoint, image_size=72)


# windows of 3, 5 and 3 tokens; grids of size / 8, then twice size / 16, padded to whole windows
@pytest.mark.parametrize(("size", "windows"), [(64, [9, 9, 1, 1, 4]), (112, [25, 25, 4, 4, 9])])
def test_experts_are_chosen_per_window_from_its_own_tokens(size, windows):
    model = tuned(size=size).eval()
    layers = [module for module in model.modules() if isinstance(module, ConvLoraLinear)]
    inputs = []
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in layers:
            torch.nn.init.normal_(layer.lora_gate["default"])
            layer.register_forward_hook(lambda module, given, output: inputs.append(given[0]))
        model(torch.randn(2, 3, size, size))
        chosen = [layer.routing["default"].index for layer in layers]
        assert [len(index) for index in chosen] == [2 * count for count in windows]
        assert len(torch.cat(chosen).unique()) > 2
        for layer, tokens, index in zip(layers, inputs, chosen, strict=True):
            pooled = tokens.flatten(1, 2).mean(1) @ layer.lora_A["default"].weight.T
            assert torch.equal(index, (pooled @ layer.lora_gate["default"]).argmax(1))


def test_what_happens_in_one_window_of_a_layer_stays_in_it():
    encoder = tuned().eval().get_base_model().sam.vision_encoder
    attention = encoder.layers[0].attn
    with torch.no_grad():
        torch.nn.init.normal_(attention.qkv.lora_B["default"].weight)
        windows = torch.randn(9, 3, 3, 12)
        before = attention(windows)
        windows[4, 1, 1] += 1
        changed = (attention(windows) != before).flatten(1).any(1)
    assert changed.tolist() == [i == 4 for i in range(9)]


@pytest.mark.parametrize("method", ["conv-lora", "lora", "decoder", "full"])
def test_each_method_trains_and_only_what_it_should(method):
    torch.manual_seed(0)
    model = tuned(method).train()
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0)
    pixels = torch.randn(2, 3, 64, 64)
    labels = (pixels[:, 0] > 0).long()
    losses = []
    for _ in range(8):
        out = model(pixel_values=pixels, labels=labels)
        (out.loss + balance_loss(model)).backward()
        missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []
        optimizer.step()
        optimizer.zero_grad()
        losses.append(out.loss.item())
    assert losses[-1] < losses[0]
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name, p in model.named_parameters() if p.requires_grad}
    inside = [name.split(".layers.")[1] for name in changed if "vision_encoder" in name and ".layers." in name]
    adapted = {name.split(".")[0] for name in inside}
    assert adapted == (set() if method == "decoder" else {"0", "1", "2", "3", "4"})


def test_an_adapter_saves_and_loads(tmp_path):
    model = get_peft_model(SamForSemanticSegmentation.from_sam(small_mobile_sam()), ConvLoraConfig()).eval()
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    fresh = SamForSemanticSegmentation.from_sam(small_mobile_sam())
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        want = model(pixels).logits
        with model.disable_adapter():
            assert not torch.equal(model(pixels).logits, want)
        assert torch.equal(PeftModel.from_pretrained(fresh, tmp_path).eval()(pixels).logits, want)


@pytest.mark.parametrize("blocks", range(6))
def test_the_encoder_in_two_parts_is_the_encoder(blocks):
    encoder = small_mobile_sam().vision_encoder
    pixels = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        states = encode_prefix(encoder, pixels, blocks)
        assert torch.equal(encode_rest(encoder, states, blocks), encoder(pixels).last_hidden_state)


def test_frozen_blocks_are_those_before_the_first_adapted_one():
    assert frozen_blocks(tuned(blocks=[3, 4]).get_base_model().sam.vision_encoder) == 3
    assert frozen_blocks(tuned("decoder").get_base_model().sam.vision_encoder) == 5
    assert frozen_blocks(tuned("full").get_base_model().sam.vision_encoder) == 0


def test_gradient_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        model = tuned(routing="learned").train()
        torch.manual_seed(1)
        if checkpointing:
            model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
            assert all(layer.gradient_checkpointing for layer in model.get_base_model().sam.vision_encoder.layers)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
        torch.manual_seed(2)
        model(pixel_values=torch.randn(1, 3, 64, 64), labels=torch.ones(1, 64, 64, dtype=torch.long)).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_bf16_under_autocast_is_the_same_with_frozen_weights_stored_so_and_near_float32():
    model = tuned().eval()
    pixels = torch.randn(2, 3, 64, 64)
    encoder = model.get_base_model().sam.vision_encoder
    with torch.no_grad():
        exact = encoder(pixels).last_hidden_state
        with autocast("bf16", torch.device("cpu")):
            want = model(pixels).logits
            store_frozen(encoder, "bf16")
            assert torch.equal(model(pixels).logits, want)
            embedding = encoder(pixels).last_hidden_state.float()
    assert torch.nn.functional.cosine_similarity(embedding, exact, dim=1).min() > 0.99
