import copy
import json

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from torch import nn
from transformers.models.sam.modeling_sam import SamVisionLayer

from convlora import ConvLoraConfig, balance_loss
from convlora.adapter import ConvLoraLinear, load_adapter, save_adapter, set_image_grid
from convlora.adapter.reading import read_config
from tests.adapter import oracle
from tests.adapter.models import Vit, adapted, randomise

VARIANTS = {
    "sum": {"routing": "sum"},
    "soft": {"routing": "soft"},
    "soft-token": {"routing": "soft-token"},
    "no residual": {"residual": False},
    "linear": {"activation": "none"},
    "1x1": {"kernel_size": 1},
    "fixed, no residual": {"routing": 4, "residual": False},
    "sum of linear 1x1, no residual": {"routing": "sum", "activation": "none", "kernel_size": 1, "residual": False},
}
EACH = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
IMAGE = (5, 7)  # tokens of an image, in windows of 3 × 3: two rows of three, padded to 6 × 9


def layer_of(model):
    return next(module for module in model.modules() if isinstance(module, ConvLoraLinear))


def tensors_of(layer):
    return {
        "a": layer.lora_A["default"].weight,
        "b": layer.lora_B["default"].weight,
        "weight": layer.lora_expert_weight["default"],
        "bias": layer.lora_expert_bias["default"],
        **({"gate": layer.lora_gate["default"]} if "default" in layer.lora_gate else {}),
    }


def shares_of(z, config, gate, index):
    """(b, M, h, w) factors of the experts for low-rank maps (b, r, h, w)."""
    b, _, h, w = z.shape
    experts = len(config.scales)
    if config.routing == "sum":
        return z.new_ones(b, experts, h, w)
    if config.routing == "soft":
        return torch.einsum("brhw,rm->bm", z / (h * w), gate).softmax(1)[:, :, None, None].expand(-1, -1, h, w)
    if config.routing == "soft-token":
        return torch.einsum("brhw,rm->bmhw", z, gate).softmax(1)
    return F.one_hot(index, experts).to(z)[:, :, None, None].expand(-1, -1, h, w)


def reference(x, layer, index):
    """The variant of the layer as its configuration reads, every expert at full resolution; x is (b, h, w, c)."""
    config, tensors = layer.conv_lora["default"], tensors_of(layer)
    z = torch.einsum("bhwc,rc->brhw", x, tensors["a"])
    activation = {"gelu": F.gelu, "none": lambda values: values}[config.activation]
    answers = [
        oracle.expert(z, weight, bias, scale, activation)
        for weight, bias, scale in zip(tensors["weight"], tensors["bias"], config.scales, strict=True)
    ]
    local = (shares_of(z, config, tensors.get("gate"), index)[:, :, None] * torch.stack(answers, 1)).sum(1)
    inner = z + local if config.residual else local
    return layer.base_layer(x) + config.lora_alpha / config.r * torch.einsum("brhw,or->bhwo", inner, tensors["b"])


@EACH
def test_each_variant_equals_the_plain_formulation_with_all_gradients(config):
    layer = layer_of(adapted(**config).double().eval())
    x = torch.randn(4, 5, 6, 12, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(4, 5, 6, 36, dtype=torch.float64)
    got = layer(x)
    want = reference(x, layer, layer.routing["default"].index)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)  # float64: hundreds of terms of size ~100
    learned = [x, *(t for name, t in tensors_of(layer).items() if name != "gate" or not layer.lora_noise)]
    pairs = zip(*(torch.autograd.grad((y * seed).sum(), learned) for y in (got, want)), strict=True)
    for mine, theirs in pairs:
        assert theirs.abs().max() > 0
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-9)


@EACH
def test_every_parameter_takes_part_in_every_step(config):
    model = adapted(**config).train()
    (model(torch.randn(3, 4, 4, 12)).sum() + balance_loss(model)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@EACH
def test_at_initialisation_the_output_is_bit_equal_to_the_base(config):
    layer = layer_of(adapted(trained=False, **config))
    x = torch.randn(3, 5, 5, 12)
    assert torch.equal(layer(x), layer.base_layer(x))


@EACH
def test_batch_mates_and_their_nan_never_change_an_answer(config):
    model = adapted(**config).eval()
    x = torch.randn(4, 5, 5, 12)
    together = model(x)
    alone = torch.cat([model(x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)  # matmul blocking may round differently
    x[2, 1, 1, 0] = float("nan")
    assert torch.equal(model(x)[[0, 1, 3]], together[[0, 1, 3]])


@EACH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_low_precision_is_finite_and_trains(config, dtype, autocast):
    model = adapted(**config).train()
    x = torch.randn(3, 5, 5, 12)
    with torch.autocast("cpu", dtype, enabled=autocast):
        y = model(x) if autocast else model.to(dtype)(x.to(dtype))
    assert y.dtype == dtype and y.isfinite().all()
    (y.float().sum() + balance_loss(model)).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@EACH
def test_empty_batches_and_single_tokens_work(config):
    model = adapted(**config)
    for shape in ((0, 3, 3, 12), (1, 1, 1, 12)):
        assert model(torch.randn(shape)).shape == (*shape[:-1], 2)


@pytest.mark.parametrize("config", [*VARIANTS.values(), {"context": "image"}], ids=[*VARIANTS, "image"])
def test_a_saved_variant_loads_to_the_same_answer_with_and_without_plain_peft(config, tmp_path):
    model = adapted(**config).eval()
    save_adapter(model, tmp_path, metadata={})
    x = torch.randn(4, 3, 3, 12)
    set_image_grid(model, 5, 5)
    weights = dict(model.named_parameters())
    for load in (load_adapter, PeftModel.from_pretrained):
        torch.manual_seed(0)
        one = load(Vit(), tmp_path).eval()
        set_image_grid(one, 5, 5)
        assert all(torch.equal(parameter, weights[name]) for name, parameter in one.named_parameters())
        # not to the bit: weights lie elsewhere in memory, and matmul kernels go by the address
        torch.testing.assert_close(one(x), model(x), rtol=1e-5, atol=1e-4)
        assert {name: getattr(one.peft_config["default"], name) for name in config} == config


def test_a_configuration_saved_before_there_were_variants_is_the_papers_layer(tmp_path):
    save_adapter(adapted(), tmp_path, metadata={})
    path = tmp_path / "adapter_config.json"
    values = json.loads(path.read_text())
    for name in ("residual", "activation", "kernel_size", "context"):
        del values[name]
    path.write_text(json.dumps(values))
    config = read_config(path)
    assert (config.residual, config.activation, config.kernel_size, config.context) == (True, "gelu", 3, "window")


def count(**config):
    return sum(p.numel() for p in layer_of(adapted(r=3, width=10, **config)).parameters() if p.requires_grad)


def test_the_number_of_parameters_follows_from_the_variant():
    a_and_b, gate = 3 * 10 + 30 * 3, 3 * 8
    for config, expected in (
        ({}, a_and_b + 8 * (3 * 3 * 9 + 3) + 2 * gate),
        ({"routing": "sum"}, a_and_b + 8 * (3 * 3 * 9 + 3)),
        ({"routing": "soft"}, a_and_b + 8 * (3 * 3 * 9 + 3) + gate),
        ({"routing": "soft-token"}, a_and_b + 8 * (3 * 3 * 9 + 3) + gate),
        ({"routing": "soft", "num_experts": 1}, a_and_b + 3 * 3 * 9 + 3),
        ({"routing": 5}, a_and_b + 3 * 3 * 9 + 3),
        ({"kernel_size": 1}, a_and_b + 8 * (3 * 3 + 3) + 2 * gate),
        ({"residual": False, "activation": "none", "context": "image"}, a_and_b + 8 * (3 * 3 * 9 + 3) + 2 * gate),
    ):
        assert count(**config) == expected, config


@pytest.mark.parametrize("routing", ["soft", "soft-token"])
def test_a_soft_gate_starts_with_the_mean_of_the_experts(routing):
    soft, total = (adapted(routing=name, activation="none", lora_alpha=3).eval() for name in (routing, "sum"))
    total.load_state_dict(soft.state_dict(), strict=False)
    nn.init.zeros_(layer_of(soft).lora_gate["default"])
    x = torch.randn(2, 4, 4, 12)
    outputs = []
    for model, factor in ((soft, 1), (total, 1 / 8)):
        layer = layer_of(model)
        plain = layer.base_layer(x) + layer.lora_B["default"](layer.lora_A["default"](x))
        outputs.append((layer(x) - plain) * factor)
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("routing", ["soft", "soft-token"])
def test_a_soft_gate_finds_the_expert_that_each_kind_needs(routing):
    """Two kinds of sample, or of token, told apart by their mean, each with a target that one frozen expert reaches."""
    torch.manual_seed(0)
    layer = layer_of(adapted(r=2, num_experts=2, routing=routing, width=4))
    with torch.no_grad():
        layer.lora_expert_bias["default"].copy_(torch.tensor([[3.0, -6.0], [-6.0, 3.0]]))
        layer.lora_expert_weight["default"].zero_()
        layer.lora_gate["default"].zero_()
    kind = torch.arange(16)[:, None, None] % 2
    kind = (kind + torch.arange(4) * (routing == "soft-token")).expand(16, 4, 4) % 2  # by column
    x = torch.randn(16, 4, 4, 4) * 0.1 + torch.where(kind == 0, 1.0, -1.0)[..., None]
    target = F.gelu(layer.lora_expert_bias["default"])[kind] @ layer.lora_B["default"].weight.T
    with torch.no_grad():
        target = target * layer.scaling["default"] + layer.base_layer(x)
        target += layer.lora_B["default"](layer.lora_A["default"](x)) * layer.scaling["default"]
    optimizer = torch.optim.Adam([layer.lora_gate["default"]], lr=0.3)
    losses = []
    for _ in range(60):
        loss = F.mse_loss(layer(x), target.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]
    shares = layer.routing["default"].shares.expand(-1, -1, 4, 4)
    assert shares.gather(1, kind[:, None]).min() > 0.8


@pytest.mark.parametrize("routing", ["sum", "soft", "soft-token"])
def test_where_all_experts_take_part_nothing_is_balanced(routing):
    model = adapted(routing=routing)
    model(torch.randn(4, 4, 4, 12))
    assert balance_loss(model).item() == 0


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("config", [*VARIANTS.values(), {"context": "image"}], ids=[*VARIANTS, "image"])
@torch._dynamo.config.patch(error_on_recompile=True)
def test_each_variant_is_one_graph_that_fits_the_next_batch_too(config, training):
    torch._dynamo.reset()
    model = adapted(**config).train(training)
    set_image_grid(model, 5, 5)
    layer = layer_of(model)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for seed in (0, 1):
        x = torch.randn(4, 3, 3, 12, generator=torch.Generator().manual_seed(seed))
        want, got = layer(x), compiled(x)
        if not training:
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)
        else:
            (got.sum() + balance_loss(model)).backward()
            assert all(p.grad is not None for p in layer.parameters() if p.requires_grad)


# convolution over the whole image


def windowed(call, x, size=3):
    """What transformers' SAM block does around its attention: cut (b, H, W, c) into windows, call, put together."""
    windows, padded = SamVisionLayer.window_partition(None, x, size)  # neither looks at `self`
    return SamVisionLayer.window_unpartition(None, call(windows), size, padded, x.shape[1:3])


@pytest.mark.parametrize("config", [{}, {"routing": "soft-token"}, {"routing": 2, "residual": False}])
def test_over_the_whole_image_windows_give_what_the_image_without_windows_gives(config):
    image = adapted(context="image", **config).double().eval()
    whole = adapted(**config).double().eval()
    set_image_grid(image, *IMAGE)
    x = torch.randn(2, *IMAGE, 12, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(2, *IMAGE, 36, dtype=torch.float64)
    got, want = windowed(layer_of(image), x), layer_of(whole)(x)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-11)
    assert torch.equal(layer_of(image).routing["default"].index, layer_of(whole).routing["default"].index)
    gradients = [
        torch.autograd.grad((y * seed).sum(), [x, *(t for n, t in tensors_of(layer_of(m)).items() if n != "gate")])
        for y, m in ((got, image), (want, whole))
    ]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-9)


def test_padded_tokens_get_the_answer_of_the_base_alone():
    layer = layer_of(adapted(context="image").eval())
    layer.image_grid = (2, 2)
    x = torch.zeros(1, 3, 3, 12)
    x[:, :2, :2] = torch.randn(2, 2, 12)
    delta = layer(x) - layer.base_layer(x)
    assert delta[:, 2].abs().max() == 0 == delta[:, :, 2].abs().max()
    assert delta[:, :2, :2].abs().min() > 0


@pytest.mark.parametrize(("context", "reaches"), [("window", False), ("image", True)])
def test_only_over_the_whole_image_a_token_reaches_the_next_window(context, reaches):
    layer = layer_of(adapted(routing=1, context=context).eval())
    layer.image_grid = IMAGE
    x = torch.randn(1, *IMAGE, 12)
    changed = x.clone()
    changed[0, 1, 2] += 1  # the last column of the first window
    moved = (windowed(layer, changed) - windowed(layer, x))[0].abs().amax(-1) > 0
    assert moved[:3, :3].any() and moved[:, 3:].any() == reaches


def test_whole_images_and_lists_of_tokens_work_as_windows_do():
    model = adapted(context="image").eval()
    set_image_grid(model, 6, 6)
    layer = layer_of(model)
    windows = torch.randn(8, 3, 3, 12)
    torch.testing.assert_close(layer(windows.flatten(1, 2)), layer(windows).flatten(1, 2))
    image = torch.randn(2, 6, 6, 12)
    torch.testing.assert_close(layer(image), windowed(layer, image), rtol=1e-5, atol=1e-4)


def test_windows_that_make_no_whole_image_and_an_unknown_grid_are_refused():
    model = adapted(context="image")
    with pytest.raises(ValueError, match=r"does not know how many tokens an image has.*set_image_grid"):
        model(torch.randn(4, 3, 3, 12))
    set_image_grid(model, 6, 6)
    with pytest.raises(ValueError, match=r"got 3 windows of 3×3 tokens, but an image of 6×6 tokens has 2×2"):
        model(torch.randn(3, 3, 3, 12))


def test_a_copied_layer_keeps_its_grid():
    model = adapted(context="image").eval()
    set_image_grid(model, 5, 5)
    x = torch.randn(4, 3, 3, 12)
    assert torch.equal(copy.deepcopy(model)(x), model(x))


def test_two_variants_live_in_one_layer_side_by_side():
    model = adapted().eval()
    x = torch.randn(2, 4, 4, 12)
    first = model(x)
    variant = {"routing": "soft", "kernel_size": 1, "residual": False, "activation": "none"}
    model.add_adapter("second", ConvLoraConfig(target_modules=["qkv"], **variant))
    randomise(model, "second")
    model.set_adapter("second")
    assert not torch.equal(model(x), first)
    model.set_adapter("default")
    assert torch.equal(model(x), first)


def test_prefix_tokens_get_plain_lora_without_the_residual_too():
    layer = layer_of(adapted(num_prefix_tokens=2, residual=False).eval())
    x = torch.randn(3, 2 + 9, 12)
    plain = layer.base_layer(x) + layer.lora_B["default"](layer.lora_A["default"](x)) * layer.scaling["default"]
    got = layer(x)
    torch.testing.assert_close(got[:, :2], plain[:, :2])
    assert not torch.allclose(got[:, 2:], plain[:, 2:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"routing": "softly"}, "routing='softly' must be one of .*soft, soft-token, random, sum"),
        ({"residual": "no"}, "residual='no' must be True or False"),
        ({"activation": "relu"}, "activation='relu' must be one of gelu, none"),
        ({"kernel_size": 5}, "kernel_size=5 must be one of 3, 1"),
        ({"kernel_size": True}, "kernel_size=True must be one of 3, 1"),
        ({"context": "global"}, "context='global' must be one of window, image"),
    ],
)
def test_variants_that_do_not_exist_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match="ConvLoraConfig: .*" + message):
        ConvLoraConfig(target_modules=["qkv"], **settings)
