import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForSemanticSegmentation, SamConfig, SamModel, SamVisionConfig

import convlora
from convlora import ConvLoraConfig, SamForSemanticSegmentation
from convlora.errors import SettingsError, WeightsError
from convlora.sam import SamSegmentationConfig
from convlora.sam.decoder import SemanticMaskDecoder
from tests.sam.models import small_sam

THREE = {0: "background", 1: "leaf", 2: "stem"}


@pytest.fixture
def checkpoint(tmp_path):
    small_sam().save_pretrained(tmp_path / "sam")
    return tmp_path / "sam"


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_encoder_gives_sams_embeddings_bit_for_bit(checkpoint, implementation):
    pixels = torch.randn(2, 3, 64, 64)
    sam = SamModel.from_pretrained(checkpoint, attn_implementation=implementation).eval()
    model = SamForSemanticSegmentation.from_pretrained(checkpoint, attn_implementation=implementation).eval()
    with torch.no_grad():
        assert torch.equal(model.sam.vision_encoder(pixels).last_hidden_state, sam.get_image_embeddings(pixels))


def test_the_decoder_with_sams_own_four_tokens_gives_sams_masks_without_a_prompt():
    sam = small_sam()
    decoder = SemanticMaskDecoder(sam.mask_decoder.config, 4)
    state = {k: v for k, v in sam.mask_decoder.state_dict().items() if not k.startswith("iou_prediction_head")}
    decoder.load_state_dict(state)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        embeddings = sam.get_image_embeddings(pixels)
        dense = sam.prompt_encoder.no_mask_embed.weight[..., None, None]
        got = decoder(embeddings, sam.get_image_wide_positional_embeddings(), dense)
        single = sam(pixel_values=pixels, multimask_output=False).pred_masks[:, 0]
        multi = sam(pixel_values=pixels, multimask_output=True).pred_masks[:, 0]
    torch.testing.assert_close(got, torch.cat([single, multi], dim=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("id2label", "masks"), [(None, 1), ({0: "a", 1: "b"}, 1), (THREE, 3)])
def test_there_is_one_mask_per_class_and_one_for_a_binary_task(checkpoint, id2label, masks):
    model = SamForSemanticSegmentation.from_pretrained(checkpoint, id2label=id2label)
    labels = torch.randint(0, max(masks, 2), (2, 64, 64))
    out = model(torch.randn(2, 3, 64, 64), labels=labels)
    assert out.logits.shape == (2, masks, 32, 32)
    out.loss.backward()
    assert torch.isfinite(out.loss)


def test_one_mask_starts_as_sams_mask_token_0(checkpoint):
    ours = SamForSemanticSegmentation.from_pretrained(checkpoint).sam.mask_decoder
    sams = SamModel.from_pretrained(checkpoint).mask_decoder
    assert torch.equal(ours.mask_tokens.weight, sams.mask_tokens.weight[:1])
    theirs = sams.output_hypernetworks_mlps[0].state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in ours.output_hypernetworks_mlps[0].state_dict().items())


def test_several_masks_start_apart_and_always_alike(checkpoint):
    models = [SamForSemanticSegmentation.from_pretrained(checkpoint, id2label=THREE).eval() for _ in range(2)]
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits, again = (model(pixels).logits for model in models)
    assert torch.equal(logits, again)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (logits[:, one] - logits[:, other]).std() > 0.1 * logits.std()
    first = SamModel.from_pretrained(checkpoint).mask_decoder.mask_tokens.weight[:1]
    offsets = models[0].sam.mask_decoder.mask_tokens.weight - first
    torch.testing.assert_close(offsets @ offsets.T, torch.eye(3) * 4 * first.norm() ** 2, rtol=1e-4, atol=1e-4)


def learnt(model, steps=15):
    """How much a short training of the decoder on stripes of three classes lowers the loss."""
    pixels = torch.zeros(2, 3, 64, 64)
    labels = torch.zeros(2, 64, 64, dtype=torch.long)
    for class_id, rows in ((1, slice(4, 24)), (2, slice(36, 56))):
        pixels[:, class_id, rows] = 2.0
        labels[:, rows] = class_id
    optimizer = torch.optim.AdamW(model.sam.mask_decoder.parameters(), lr=1e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(pixels, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0] - losses[-1]


def test_several_masks_learn_faster_than_from_equal_starts(checkpoint):
    apart, alike = (SamForSemanticSegmentation.from_pretrained(checkpoint, id2label=THREE) for _ in range(2))
    decoder = alike.sam.mask_decoder
    decoder.mask_tokens.weight.data[1:] = decoder.mask_tokens.weight.data[0]
    first, *others = decoder.output_hypernetworks_mlps
    for other in others:
        other.load_state_dict(first.state_dict())
    assert learnt(apart) > 1.3 * learnt(alike)


def test_every_trainable_parameter_gets_a_gradient(checkpoint):
    model = SamForSemanticSegmentation.from_pretrained(checkpoint, id2label=THREE)
    model(torch.randn(1, 3, 64, 64), labels=torch.randint(0, 3, (1, 64, 64))).loss.backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_ignored_labels_do_not_change_the_loss(checkpoint):
    model = SamForSemanticSegmentation.from_pretrained(checkpoint, id2label=THREE).eval()
    pixels = torch.randn(1, 3, 64, 64)
    labels = torch.randint(0, 3, (1, 64, 64))
    labels[:, 40:] = 255
    whole = model(pixels, labels=labels).loss
    assert whole.isfinite()
    labels[:, :40] = 255
    assert model(pixels, labels=labels).loss == 0


@pytest.mark.parametrize("id2label", [None, THREE])
def test_a_saved_segmenter_loads_to_the_same_answer_also_through_the_auto_class(checkpoint, tmp_path, id2label):
    model = SamForSemanticSegmentation.from_pretrained(checkpoint, id2label=id2label).eval()
    model.save_pretrained(tmp_path / "ours")
    pixels = torch.randn(1, 3, 64, 64)
    want = model(pixels).logits
    for loader in (SamForSemanticSegmentation, AutoModelForSemanticSegmentation):
        loaded = loader.from_pretrained(tmp_path / "ours").eval()
        assert torch.equal(loaded(pixels).logits, want)
        assert loaded.config.id2label == model.config.id2label


def test_the_adapter_and_decoder_of_a_segmenter_save_and_load_as_one_peft_folder(checkpoint, tmp_path):
    model = SamForSemanticSegmentation.from_pretrained(checkpoint)
    tuned = get_peft_model(model, ConvLoraConfig(modules_to_save=["mask_decoder"])).eval()
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    pixels = torch.randn(1, 3, 64, 64)
    tuned.save_pretrained(tmp_path / "adapter")
    fresh = SamForSemanticSegmentation.from_pretrained(checkpoint).eval()
    with torch.no_grad():  # attention takes another kernel where a weight is trainable
        want = tuned(pixels).logits
        with tuned.disable_adapter():
            assert torch.equal(fresh(pixels).logits, tuned(pixels).logits)
        assert torch.equal(PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()(pixels).logits, want)


def huge(**changes):
    vision = SamVisionConfig(
        hidden_size=1280,
        num_hidden_layers=32,
        num_attention_heads=16,
        global_attn_indexes=[7, 15, 23, 31],
        mlp_dim=5120,
    )
    options = {"id2label": {0: "background", 1: "polyp"}, "loss": "structure", **changes}
    config = SamSegmentationConfig.from_sam(SamConfig(vision_config=vision.to_dict()), **options)
    with torch.device("meta"):
        return SamForSemanticSegmentation(config)


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (ConvLoraConfig(r=3, num_experts=8, target_modules=["qkv"], modules_to_save=["mask_decoder"]), 4_020_096),
        (ConvLoraConfig(r=3, num_experts=8, target_modules=["qkv"]), 4_020_096 - 3_505_536),
    ],
)
def test_the_trainable_counts_of_vit_huge_are_the_papers(config, count):
    with torch.device("meta"):
        model = get_peft_model(huge(), config)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


def test_window_attention_routes_every_window_on_its_own(checkpoint):
    model = get_peft_model(SamForSemanticSegmentation.from_pretrained(checkpoint), ConvLoraConfig(routing="learned"))
    model(torch.randn(2, 3, 64, 64))
    routings = [m.routing["default"].index for m in model.modules() if hasattr(m, "conv_lora")]
    # an 8 × 8 grid, padded to 9 × 9, has 9 windows of 3 × 3; the global block routes per image
    assert [len(index) for index in routings] == [2 * 9, 2]
    assert convlora.balance_loss(model).requires_grad


def test_gradient_checkpointing_of_the_encoder_keeps_every_gradient(checkpoint):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        base = SamForSemanticSegmentation.from_pretrained(checkpoint)
        model = get_peft_model(base, ConvLoraConfig(modules_to_save=["mask_decoder"])).train()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        if checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(1)
        pixels = torch.randn(1, 3, 64, 64)
        loss = model(pixels, labels=torch.ones(1, 64, 64, dtype=torch.long)).loss + convlora.balance_loss(model)
        loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name


def test_the_embedded_checkpoint_loads_and_segments():
    model = SamForSemanticSegmentation.from_pretrained("sam-tiny").eval()
    assert model.dtype == torch.float32
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 512, 512)).logits.shape == (1, 1, 128, 128)


def test_a_damaged_embedded_checkpoint_is_refused(monkeypatch):
    from convlora.sam import checkpoints

    monkeypatch.setattr(checkpoints, "_EMBEDDED_SHA256", "0" * 64)
    checkpoints._verified_embedded.cache_clear()
    with pytest.raises(WeightsError, match="missing or damaged"):
        SamForSemanticSegmentation.from_pretrained("sam-tiny")
    checkpoints._verified_embedded.cache_clear()


def test_what_is_not_a_sam_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(WeightsError, match=r"holds a 'vit' model; this needs a SAM"):
        SamForSemanticSegmentation.from_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"no SAM checkpoint at '/nowhere'.*Give 'sam-tiny'"):
        SamForSemanticSegmentation.from_pretrained("/nowhere")


@pytest.mark.parametrize("id2label", [{0: "a"}, {1: "a", 2: "b"}, {0: "a", 2: "b"}])
def test_classes_that_are_not_numbered_from_0_are_refused(checkpoint, id2label):
    with pytest.raises(SettingsError, match="must name at least two classes"):
        SamForSemanticSegmentation.from_pretrained(checkpoint, id2label=id2label)


def test_a_binary_loss_for_three_classes_is_refused(checkpoint):
    with pytest.raises(SettingsError, match="dice-ce"):
        SamForSemanticSegmentation.from_pretrained(checkpoint, id2label=THREE, loss="structure")


def test_a_loss_can_be_chosen_for_a_checkpoint_of_ours(checkpoint, tmp_path):
    SamForSemanticSegmentation.from_pretrained(checkpoint).save_pretrained(tmp_path / "ours")
    assert SamForSemanticSegmentation.from_pretrained(tmp_path / "ours").config.loss == "structure"
    loaded = SamForSemanticSegmentation.from_pretrained(tmp_path / "ours", loss="balanced-bce")
    assert loaded.config.loss == "balanced-bce"
    with pytest.raises(SettingsError, match="loss='nonsense'"):
        SamForSemanticSegmentation.from_pretrained(tmp_path / "ours", loss="nonsense")


def test_another_input_size_is_refused(checkpoint):
    model = SamForSemanticSegmentation.from_pretrained(checkpoint)
    with pytest.raises(ValueError, match=r"pixel_values are \(32, 32\); this model takes \(64, 64\)"):
        model(torch.zeros(1, 3, 32, 32))
