import json
import re

import pytest
import torch
from peft import PeftModel

from convlora import SamForSemanticSegmentation, balance_loss
from convlora.adapter import load_adapter, save_adapter
from convlora.adapter.parameters import added_parameters
from convlora.adapter.saving import base_probe
from convlora.errors import SettingsError, WeightsError
from convlora.evaluation.evaluate import evaluate
from convlora.evaluation.settings import EvaluateSettings
from convlora.inference.folder import predict_folder
from convlora.inference.settings import PredictSettings
from convlora.sam.segmenters import load_base
from convlora.training.events import Progress
from convlora.training.methods import apply_method, count_parameters, draw_weights
from convlora.training.run import resume, train
from convlora.training.settings import ADAPT_DECODER, METHODS, AdapterSettings
from tests.sam.mobile import small_mobile_sam
from tests.sam.models import small_sam
from tests.sam.test_modeling import huge
from tests.training.runs import quick_settings, weights_hash

CLASSES = {0: "background", 1: "leaf", 2: "stem"}

# What each method trains in the encoder of two blocks, besides whole modules: a pattern of the names and their number.
# Width 24, qkv 72, MLP 48, neck 32; all biases: 2 · (4 · 24 + 72 + 48 + …), patch embedding and two norms of the neck.
OUTPUTS = 2 * (24 + 72 + 24 + 24 + 48 + 24)  # of norms and linear layers in the blocks
OWN = {
    "conv-lora": (r"layers\.\d\.attn\.qkv\.lora_(A|B|gate|noise|expert_\w+)", 2 * (3 * 24 + 3 * 72 + 672 + 48)),
    "lora": (r"layers\.\d\.attn\.qkv\.lora_[AB]", 2 * (3 * 24 + 3 * 72)),
    "dora": (r"layers\.\d\.attn\.qkv\.lora_(A|B|magnitude_vector)", 2 * (3 * 24 + 3 * 72 + 72)),
    "adapter": (r"layers\.\d\.(attn\.proj|mlp\.lin2)\.houlsby_(down|up)", 4 * (2 * 3 * 24 + 3 + 24)),
    "ssf": (r"(layers\.\d|patch_embed|neck)\..+\.ssf_(scale|shift)", 2 * (OUTPUTS + 24 + 4 * 32)),
    "bitfit": (r"(layers\.\d|patch_embed|neck)\..+\.bitfit_bias", OUTPUTS + 24 + 2 * 32),
    "norm": (r".*layer_norm\d\.ln_tuning_layers", 2 * (2 * 2 * 24 + 2 * 32)),
    "vpt": (r"layers\.\d\.attn\.vpt_prompts", 2 * 12 * 24),
    "lst": (r"lst_side", 2 * (24 * 16 + 16 + 1 + 8 * 16**2 + 11 * 16) + 16 * 24 + 24),
    "sam-adapter": (r"sam_adapter_prompts", 24 + 1 + 3 * 8**2 + 1 + 2 * 2 + 24 + 24),
    "decoder": (r"$^", 0),
    "full": (r"$^", 0),
    "scratch": (r"$^", 0),
}
WHOLE = {"full": ["vision_encoder"], "scratch": ["vision_encoder", "prompt_encoder.no_mask_embed"]}


def segmenter(seed=0, **kwargs):
    return SamForSemanticSegmentation.from_sam(small_sam(seed), **kwargs).eval()


def tuned(method, **adapter):
    torch.manual_seed(1)
    return apply_method(segmenter(), method, AdapterSettings(**adapter))


def trainable(model):
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def move(model):
    """Change everything that is trained."""
    generator = torch.Generator().manual_seed(2)
    for parameter in trainable(model).values():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@torch.no_grad()
def logits(model):
    return model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))).logits


@pytest.mark.parametrize("method", METHODS)
def test_each_method_trains_its_own_parameters_and_whole_modules_and_nothing_else(method):
    model = tuned(method)
    names = trainable(model)
    pattern, own = OWN[method]
    parts = [*WHOLE.get(method, []), "mask_decoder"]
    whole = "|".join(rf"{re.escape(part)}\.modules_to_save" for part in parts)
    allowed = re.compile(rf"base_model\.model\.sam\.(vision_encoder\.{pattern}|{whole})\.default\b.*")
    assert [name for name in names if not allowed.fullmatch(name)] == []
    base = segmenter()
    modules = [base.get_submodule(f"sam.{part}") for part in parts]
    assert sum(p.numel() for p in names.values()) == own + sum(p.numel() for m in modules for p in m.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_reaches_exactly_what_is_trained(method):
    model = move(tuned(method)).train()  # moved: behind a matrix of zeros there is no gradient
    pixels, labels = torch.randn(2, 3, 64, 64), torch.randint(0, 2, (2, 64, 64))
    (model(pixels, labels=labels).loss + balance_loss(model)).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == set(trainable(model))


@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("scratch", "vpt")])
def test_tuning_starts_at_the_base_model(method):
    assert torch.equal(logits(tuned(method)), logits(segmenter()))


@pytest.mark.parametrize("method", METHODS)
def test_disabled_it_is_the_base_model_and_saved_it_loads_to_the_bit(method, tmp_path):
    model, base = move(tuned(method)), segmenter()
    want, before = logits(model), logits(base)
    assert not torch.allclose(want, before, atol=1e-3)
    with model.disable_adapter():
        assert torch.equal(logits(model), before)
    save_adapter(model, tmp_path, metadata={})
    # trainable, because attention takes another kernel where a weight is trained
    assert torch.equal(logits(load_adapter(segmenter(), tmp_path, trainable=True).eval()), want)
    assert torch.equal(logits(PeftModel.from_pretrained(segmenter(), tmp_path, is_trainable=True).eval()), want)
    with pytest.raises(WeightsError, match="trained on another base model"):
        load_adapter(segmenter(seed=5), tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_two_adapters_of_a_method_swap(method, tmp_path):
    first, second = move(tuned(method)), move(tuned(method))
    move(second)
    wants = [logits(first), logits(second)]
    second.save_pretrained(tmp_path)
    first.load_adapter(tmp_path, "second", is_trainable=True)
    for name, want in (("second", wants[1]), ("default", wants[0])):
        first.set_adapter(name)
        assert torch.equal(logits(first), want)


@pytest.mark.parametrize("method", METHODS)
def test_base_weights_are_told_from_those_of_the_method(method):
    model, base = move(tuned(method)), segmenter()
    assert base_probe(model) == base_probe(base)
    assert {id(p) for p in added_parameters(model).values()} == {id(p) for p in trainable(model).values()}
    assert added_parameters(base) == {}
    trained, total = count_parameters(model)
    assert trained == sum(p.numel() for p in added_parameters(model).values())
    assert total >= sum(p.numel() for p in base.parameters())


def test_the_file_of_an_adapter_names_its_modules_in_order(tmp_path):
    model = tuned("lora", decoder="adapted")  # PEFT keeps LoRA's targets in a set
    save_adapter(model, tmp_path, metadata={})
    names = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert len(names) > 3 and names == sorted(names)


DECODER, C, MLP, L, NECK = 3_505_536, 1280, 5120, 32, 256
BLOCK_OUTPUTS = 7 * C + MLP  # two norms, qkv, projection and the MLP's second layer; its first
ATTENTION_POSITIONS = (L - 4) * 2 * 27 * 80 + 4 * 2 * 127 * 80
ENCODER = (
    (3 * 16 * 16 * C + C + 64 * 64 * C)
    + L * (4 * C * C + 4 * C + 2 * C * MLP + MLP + C + 4 * C)
    + ATTENTION_POSITIONS
    + (C * NECK + 9 * NECK * NECK + 4 * NECK)
)


@pytest.mark.parametrize(
    ("method", "count"),
    [
        ("lora", 3_997_056),
        ("conv-lora", 4_020_096),
        ("decoder", DECODER),
        ("dora", 3_997_056 + L * 3 * C),
        ("adapter", DECODER + L * 2 * (2 * 3 * C + 3 + C)),
        ("ssf", DECODER + 2 * (L * BLOCK_OUTPUTS + C + 4 * NECK)),
        ("bitfit", DECODER + L * BLOCK_OUTPUTS + C + 2 * NECK),
        ("norm", DECODER + L * 2 * 2 * C + 2 * 2 * NECK),
        ("vpt", DECODER + L * 12 * C),
        ("full", DECODER + ENCODER),
        ("scratch", DECODER + ENCODER + 256),
    ],
)
def test_the_counts_of_vit_huge_follow_from_its_shape(method, count):
    with torch.device("meta"):
        model = apply_method(huge(), method, AdapterSettings())
    assert count_parameters(model)[0] == count


HEADS = 256 + 2 * (256 * 256 + 256) + 256 * 32 + 32  # a mask token and its hyper-network
# of q, k, v and the projection behind: 256 -> 256 in self-attention, 256 -> 128 across
DECODER_LORA = 2 * 3 * (4 * 512 + 2 * 4 * 384 + 2 * (256 + 2048)) + 3 * 4 * 384


@pytest.mark.parametrize(
    ("method", "decoder", "count"),
    [
        ("lora", "frozen", 3_997_056 - DECODER + HEADS),
        ("conv-lora", "frozen", 4_020_096 - DECODER + HEADS),
        ("full", "frozen", ENCODER + HEADS),
        ("lora", "adapted", 3_997_056 - DECODER + HEADS + DECODER_LORA),
        # four norms in two layers, one behind them, and that of the upscaling
        ("norm", "adapted", L * 2 * 2 * C + 2 * 2 * NECK + HEADS + 2 * (2 * 4 * 256 + 256 + 64)),
    ],
)
def test_the_decoder_can_be_adapted_or_frozen_but_for_its_heads(method, decoder, count):
    with torch.device("meta"):
        model = apply_method(huge(), method, AdapterSettings(decoder=decoder))
    assert count_parameters(model)[0] == count


@pytest.mark.parametrize("method", ADAPT_DECODER)
def test_in_an_adapted_decoder_the_method_and_every_head_train_and_all_of_it_gets_a_gradient(method, tmp_path):
    base = segmenter(id2label=CLASSES)
    model = move(apply_method(base, method, AdapterSettings(decoder="adapted"))).train()
    names = [name.removeprefix("base_model.model.sam.") for name in trainable(model)]
    inside = [name.removeprefix("mask_decoder.") for name in names if name.startswith("mask_decoder.")]
    heads = {name.partition(".modules_to_save.")[0] for name in inside if ".modules_to_save." in name}
    assert heads == {"mask_tokens", *(f"output_hypernetworks_mlps.{i}" for i in range(3))}
    own = [name for name in inside if ".modules_to_save." not in name]
    assert own and all(re.match(r"(transformer|upscale_\w+)\.", name) for name in own)
    assert len(inside) < len(names)  # the encoder is adapted too
    model(torch.randn(2, 3, 64, 64), labels=torch.randint(0, 3, (2, 64, 64))).loss.backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()} == set(
        trainable(model)
    )
    model.eval()
    save_adapter(model, tmp_path, metadata={})
    loaded = load_adapter(segmenter(id2label=CLASSES), tmp_path, trainable=True).eval()
    assert torch.equal(logits(loaded), logits(model))


def test_the_classifier_of_a_head_of_queries_trains_in_a_frozen_decoder():
    base = segmenter(id2label=CLASSES, head="queries", num_queries=5)
    names = trainable(apply_method(base, "lora", AdapterSettings(decoder="frozen")))
    inside = [name.partition(".mask_decoder.")[2] for name in names if ".mask_decoder." in name]
    assert {name.partition(".modules_to_save.")[0] for name in inside} == {
        "class_predictor",
        "mask_tokens",
        "output_hypernetworks_mlps.0",
    }


def test_a_method_that_needs_sams_encoder_is_refused_on_another():
    base = SamForSemanticSegmentation.from_sam(small_mobile_sam())
    with pytest.raises(SettingsError, match=r"method='lst' does not fit this model: .* Choose another method\.$"):
        apply_method(base, "lst", AdapterSettings())


@pytest.mark.parametrize(
    ("method", "decoder", "message"),
    [
        ("conv-lora", "adapted", "adapter.decoder='adapted' goes with lora, .*not with method='conv-lora'"),
        ("full", "adapted", "goes with lora"),
        ("scratch", "frozen", "leaves method='scratch' nothing to start from"),
        ("lora", "nonsense", "adapter.decoder='nonsense' must be one of tuned, adapted, frozen"),
    ],
)
def test_a_decoder_that_does_not_go_with_the_method_is_refused(method, decoder, message):
    with pytest.raises(SettingsError, match=message):
        apply_method(segmenter(), method, AdapterSettings(decoder=decoder))


@pytest.mark.parametrize(("blocks", "adapted"), [(1, {1}), (2, {0, 1}), ([0], {0}), ([1, 0], {0, 1})])
@pytest.mark.parametrize(
    "method", [method for method in METHODS if method not in ("lst", "decoder", "full", "scratch")]
)
def test_only_the_chosen_blocks_are_adapted(method, blocks, adapted):
    model = tuned(method, blocks=blocks)
    encoder = [name for name in trainable(model) if ".vision_encoder." in name]
    pattern = r"vision_encoder\.layers\.(\d)\." if method != "sam-adapter" else r"\.tune\.(\d)\."
    found = {int(match[1]) for name in encoder if (match := re.search(pattern, name))}
    assert found == adapted
    if method != "sam-adapter":
        assert all(re.search(pattern, name) for name in encoder)
    move(model)(torch.randn(1, 3, 64, 64)).logits.sum().backward()


def test_blocks_before_the_first_adapter_run_without_a_graph():
    model = tuned("conv-lora", blocks=1)
    outputs = []
    for layer in model.get_base_model().sam.vision_encoder.layers:
        layer.register_forward_hook(lambda module, inputs, output: outputs.append(output.requires_grad))
    model(torch.randn(1, 3, 64, 64))
    assert outputs == [False, True]


@pytest.mark.parametrize("blocks", [0, 3, [2], [], [-1]])
@pytest.mark.parametrize("method", ["lora", "ssf", "lst"])
def test_blocks_that_are_not_there_are_refused(method, blocks):
    with pytest.raises(SettingsError, match=r"this encoder has 2 blocks"):
        tuned(method, blocks=blocks)


def test_an_unknown_method_is_refused():
    with pytest.raises(SettingsError, match="method='x' must be one of conv-lora, lora, "):
        tuned("x")


def test_scratch_draws_all_weights_anew_from_the_seed_and_keeps_the_base():
    models = []
    for seed in (0, 0, 1):
        model = segmenter()
        torch.manual_seed(seed)
        models.append(apply_method(model, "scratch", AdapterSettings()).eval())
    first, again, other = (logits(model) for model in models)
    assert torch.equal(first, again) and not torch.equal(first, other)
    base = dict(segmenter().named_parameters())
    for name, parameter in trainable(models[0]).items():
        if parameter.numel() > 1 and parameter.any() and not (parameter == 1).all():
            original = base[name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")]
            assert not torch.isclose(parameter, original).any(), name
    with models[0].disable_adapter():
        assert torch.equal(logits(models[0]), logits(segmenter()))


def test_a_fresh_start_is_torchs_own_with_positions_of_zero():
    encoder = segmenter().sam.vision_encoder
    torch.manual_seed(0)
    draw_weights(encoder)
    assert not encoder.pos_embed.any() and not encoder.layers[0].attn.rel_pos_h.any()
    assert (encoder.layers[0].layer_norm1.weight == 1).all()
    bound = 1 / 24**0.5  # of torch's linear layers with 24 inputs
    assert encoder.layers[1].attn.qkv.weight.abs().max() <= bound
    assert 0.9 * bound < encoder.layers[1].attn.qkv.weight.abs().max()


def test_a_unet_is_trained_from_scratch_and_in_no_other_way():
    blank = load_base("unet", id2label={0: "background", 1: "leaf"}, image_size=64).eval()
    torch.manual_seed(0)
    model = apply_method(blank, "scratch", AdapterSettings()).eval()
    assert count_parameters(model) == (1_625_420, 1_625_420)
    assert logits(model).std() > 0.01
    with model.disable_adapter():
        assert not logits(model).any()
    with pytest.raises(SettingsError, match="method='lora' tunes a SAM, and model='unet' has no trained weights"):
        apply_method(load_base("unet", id2label={0: "background", 1: "leaf"}), "lora", AdapterSettings())


class Crash(Exception):  # noqa: N818
    pass


def crash_at_step_3(event):
    if isinstance(event, Progress) and event.loss is not None and event.step == 3:
        raise Crash


@pytest.mark.parametrize(
    ("name", "changes", "trained"),
    [
        ("unet", {"model": "unet", "method": "scratch", "image_size": 64}, 1_625_420),
        ("scratch", {"method": "scratch"}, 31_536 + 26_504 + 32),
        ("adapter", {"method": "adapter", "adapter": AdapterSettings(decoder="adapted")}, 5_003),
    ],
)
def test_a_run_trains_continues_predicts_and_is_evaluated(workspace, name, changes, trained):
    whole, broken = (quick_settings(workspace, f"method_{name}_{kind}", max_steps=4, **changes) for kind in "ab")
    run = train(whole)
    with pytest.raises(Crash):
        train(broken, crash_at_step_3)
    assert weights_hash(resume(broken.output)) == weights_hash(run)
    masks = predict_folder(PredictSettings(run=whole.output, images=whole.images, output=f"{whole.output}_masks"))
    assert len(masks) == 9
    result = evaluate(EvaluateSettings(run=whole.output)).result
    assert (result.name, result.trainable) == (name, trained)
    assert 0 <= result.scores.as_json()["scores"]["iou"] <= 1 and (run.path / "report.html").is_file()
    first, second = (PeftModel.from_pretrained(load(whole), run.adapter).eval() for _ in range(2))
    assert torch.equal(logits(first), logits(second))


def load(settings):
    return load_base(settings.model, id2label={0: "background", 1: "foreground"}, image_size=settings.image_size)


@pytest.mark.parametrize(
    ("method", "adapter", "message"),
    [
        ("conv-lora", {"kernel_size": 5}, "adapter.kernel_size=5 must be one of"),
        ("conv-lora", {"balance_weight": float("nan")}, "adapter.balance_weight=nan must be finite"),
        ("vpt", {"num_prompts": 0}, "adapter.num_prompts=0 must be at least 1"),
        ("adapter", {"r": 0}, "adapter.r=0 must be at least 1"),
        ("lora", {"lora_alpha": -5}, "adapter.lora_alpha=-5 must be at least 1"),
        ("decoder", {"blocks": 1}, "adapter.blocks=1 chooses blocks to adapt, and method='decoder' adapts none"),
        ("lora", {"target_modules": ["qkv", "lin7"]}, r"cannot be adapted: the image encoder has no lin7\."),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(method, adapter, message):
    with pytest.raises(SettingsError, match=message):
        apply_method(segmenter(), method, AdapterSettings(**adapter))


def test_target_modules_are_mentioned_only_to_those_who_give_them():
    base = SamForSemanticSegmentation.from_sam(small_mobile_sam())
    with pytest.raises(SettingsError) as caught:
        apply_method(base, "vpt", AdapterSettings())
    assert "target_modules" not in str(caught.value)


def test_tuned_norms_are_counted_once():
    model = tuned("norm")
    assert count_parameters(model)[1] == sum(p.numel() for p in segmenter().parameters())
