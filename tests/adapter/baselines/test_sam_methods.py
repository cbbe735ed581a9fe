"""What holds for every baseline that needs a SAM: it is a PEFT method like the others."""

import copy

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model

from convlora import SamForSemanticSegmentation
from convlora.adapter import load_adapter, save_adapter
from convlora.adapter.baselines import LstConfig, SamAdapterConfig, VptConfig
from convlora.sam.precision import store_frozen
from convlora.sam.prefix import frozen_blocks
from tests.adapter.baselines.segmenters import move, pixels, segmenter, trainable, tuned
from tests.sam.models import small_sam

METHODS = {
    "vpt": (lambda **values: VptConfig(num_prompts=3, **values), "vpt_"),
    "lst": (lambda **values: LstConfig(reduction=2, **values), "lst_"),
    "sam-adapter": (lambda **values: SamAdapterConfig(reduction=4, **values), "sam_adapter_"),
}


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def logits(model, x=None):
    with torch.no_grad():
        return model(pixels() if x is None else x).logits


def test_only_the_method_and_the_decoder_train_and_all_of_it_gets_a_gradient_in_every_step(method):
    make, prefix = method
    model = tuned(make(), trained=False).train()
    optimiser = torch.optim.SGD(trainable(model).values(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        model(pixels()).logits.square().mean().backward()
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad == (f".{prefix}" in name or ".modules_to_save." in name), name
            assert (parameter.grad is not None) == parameter.requires_grad, name
        optimiser.step()
    # what starts at zero lets the first gradient through to nothing before it, the second to everything
    assert all(p.grad.abs().max() > 0 for name, p in trainable(model).items() if prefix in name)


def test_disabled_it_is_the_base_model_to_the_bit(method):
    want = logits(segmenter())
    model = tuned(method[0]())
    assert not torch.allclose(logits(model), want)
    with model.disable_adapter():
        assert torch.equal(logits(model), want)
    assert not torch.allclose(logits(model), want)


def test_unloading_gives_the_encoder_back(method):
    encoder = tuned(method[0]()).unload().sam.vision_encoder  # the decoder stays the tuned one, as with PEFT's methods
    base = segmenter().sam.vision_encoder
    assert [name for name, _ in encoder.named_modules()] == [name for name, _ in base.named_modules()]
    with torch.no_grad():
        assert torch.equal(encoder(pixels()).last_hidden_state, base(pixels()).last_hidden_state)


def test_it_saves_and_loads_to_the_bit_in_both_ways(method, tmp_path):
    model = tuned(method[0](layers_to_transform=[1]))
    want = logits(model)
    for folder in ("peft", "ours"):
        (tmp_path / folder).mkdir()
    model.save_pretrained(tmp_path / "peft")
    save_adapter(model, tmp_path / "ours", metadata={})
    assert torch.equal(logits(PeftModel.from_pretrained(segmenter(), tmp_path / "peft").eval()), want)
    loaded = load_adapter(segmenter(), tmp_path / "ours", trainable=True).eval()
    assert torch.equal(logits(loaded), want)
    assert trainable(loaded).keys() == trainable(model).keys()
    assert type(PeftConfig.from_pretrained(tmp_path / "peft")) is type(model.peft_config["default"])


def test_two_adapters_switch_and_delete(method):
    make, prefix = method
    model = tuned(make())
    first = logits(model)
    model.add_adapter("second", make(modules_to_save=["mask_decoder"]))
    assert torch.equal(logits(model), first)
    model.set_adapter("second")
    move(model)
    assert all(".second" in name for name in trainable(model))
    second = logits(model)
    assert not torch.allclose(second, first)
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    model.delete_adapter("second")
    assert torch.equal(logits(model), first)
    assert not any(".second" in name for name, _ in model.named_parameters() if prefix in name)


def test_merging_is_refused(method):
    model = tuned(method[0]())
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ValueError, match="cannot be merged into the base weights: "):
            merge()


def test_gradient_checkpointing_changes_no_gradient(method):
    gradients = []
    for checkpointing in (False, True):
        model = tuned(method[0]()).train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model(pixels()).logits.square().mean().backward()
        gradients.append({name: p.grad for name, p in trainable(model).items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_under_bf16_autocast_it_trains_in_float32_and_stays_near(method):
    model = tuned(method[0]())
    want = logits(model)
    store_frozen(model.get_base_model().sam.vision_encoder, "bf16")
    assert all(p.dtype == torch.float32 for p in trainable(model).values())
    with torch.autocast("cpu", torch.bfloat16):
        got = model(pixels()).logits
        got.float().square().mean().backward()
    # 2 blocks and the decoder, each rounding to 8 bits
    assert (got - want).norm() / want.norm() < 16 * 2**-8
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trainable(model).values())


def test_stored_in_bf16_for_inference_no_bit_changes_under_autocast(method):
    model = tuned(method[0]()).requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        want = logits(model)
        store_frozen(model.get_base_model().sam.vision_encoder, "bf16")
        assert torch.equal(logits(model), want)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_base_of_another_format_keeps_it(method, dtype):
    model = tuned(method[0](), dtype=dtype)
    encoder = model.get_base_model().sam.vision_encoder
    with torch.no_grad():
        assert encoder(pixels().to(dtype)).last_hidden_state.dtype == dtype


def test_other_input_sizes_work(method):
    base = SamForSemanticSegmentation.from_sam(small_sam(), image_size=80).eval()  # 10 × 10 tokens, learned for 8 × 8
    want = logits(base, pixels(size=80))
    model = get_peft_model(base, method[0]()).eval()
    move(model)
    got = logits(model, pixels(size=80))
    assert got.shape == want.shape == (2, 1, 40, 40)
    assert not torch.allclose(got, want)


def test_no_block_counts_as_frozen(method):
    # the answers of frozen blocks are kept, and these blocks' depend on what is trained
    assert frozen_blocks(segmenter().sam.vision_encoder) == 0
    assert frozen_blocks(segmenter().requires_grad_(False).sam.vision_encoder) == 2
    assert frozen_blocks(tuned(method[0]()).get_base_model().sam.vision_encoder) == 0


def test_a_copy_is_independent(method):
    model = tuned(method[0]())
    want = logits(model)
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), want)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert torch.equal(logits(model), want)


def test_what_it_cannot_adapt_is_refused(method):
    make, _ = method
    with pytest.raises(ValueError, match="neck is a SamVisionNeck"):
        tuned(make(target_modules=["neck"]))
