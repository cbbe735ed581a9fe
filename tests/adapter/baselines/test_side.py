import pytest
import torch
from torch import nn

from convlora.adapter.baselines import LstConfig
from tests.adapter.baselines.segmenters import DECODER, huge, move, pixels, segmenter, tuned


def encoder_of(model):
    return model.get_base_model().sam.vision_encoder


def test_it_starts_as_the_base_model_to_the_bit():
    with torch.no_grad():
        assert torch.equal(tuned(LstConfig(), trained=False)(pixels()).logits, segmenter()(pixels()).logits)


def test_the_ladder_follows_the_papers_recursion():
    encoder = encoder_of(tuned(LstConfig(reduction=1)))
    plain, side = segmenter().sam.vision_encoder, encoder.lst_side["default"]
    with torch.no_grad():
        states = plain.patch_embed(pixels()) + plain.pos_embed
        climbed = 0
        for i, block in enumerate(plain.layers):
            gate = 1 / (1 + (-side.gates[i] / 0.1).exp())
            climbed = side.blocks[i](gate * side.down[i](states) + (1 - gate) * climbed)
            states = block(states)
        want = plain.neck(states + side.up(climbed))
        torch.testing.assert_close(encoder(pixels()).last_hidden_state, want)


def test_rungs_stand_beside_the_chosen_blocks_only():
    encoder = encoder_of(tuned(LstConfig(layers_to_transform=[1])))
    side = encoder.lst_side["default"]
    plain = segmenter().sam.vision_encoder
    assert len(side.blocks) == len(side.down) == len(side.gates) == 1
    assert side.blocks[0].window_size == plain.layers[1].window_size == 0
    with torch.no_grad():
        below = plain.layers[0](plain.patch_embed(pixels()) + plain.pos_embed)
        climbed = side.blocks[0](torch.sigmoid(side.gates[0] / 0.1) * side.down[0](below))
        want = plain.neck(plain.layers[1](below) + side.up(climbed))
        torch.testing.assert_close(encoder(pixels()).last_hidden_state, want)


def test_the_encoder_runs_without_a_graph():
    model = tuned(LstConfig()).train()
    encoder, seen = encoder_of(model), []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    model(pixels()).logits.sum().backward()
    assert seen == [False, False]


def test_a_side_network_keeps_no_activation_of_the_encoder_but_the_rungs_inputs():
    def kept(model):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append((t.data_ptr(), t.numel())) or t, id):
            encoder_of(model)(pixels())
        return sum(dict(sizes).values())

    side, everything = tuned(LstConfig()), tuned(LstConfig())
    nn.Module.requires_grad_(encoder_of(everything).base_layer, True)
    with everything.disable_adapter():
        whole = kept(everything)
    assert kept(side) < whole / 2


def test_it_knows_no_input_size():
    small, large = tuned(LstConfig()), tuned(LstConfig(), size=128)
    assert all("pos" not in name for name, _ in encoder_of(small).lst_side.named_parameters())
    state = encoder_of(small).lst_side.state_dict()
    encoder_of(large).lst_side.load_state_dict(state)


def test_active_adapters_add_up():
    model = tuned(LstConfig())
    model.add_adapter("second", LstConfig(reduction=2, modules_to_save=["mask_decoder"]))
    encoder = encoder_of(model)
    model.set_adapter("second")
    move(model)

    def before_the_neck(names):
        seen = []
        hook = encoder.neck.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        encoder.set_adapter(names)
        with torch.no_grad():
            encoder(pixels())
        hook.remove()
        return seen[0]

    base = before_the_neck([])
    first, second = (before_the_neck([name]) - base for name in ("default", "second"))
    torch.testing.assert_close(before_the_neck(["default", "second"]) - base, first + second, rtol=1e-4, atol=1e-4)


def test_the_default_trains_the_papers_count_in_vit_h_to_four_digits():
    c, w, rungs = 1280, 112, 32
    attention = 4 * w * w + 4 * w
    mlp = 2 * (2 * w * w) + 3 * w
    norms = 4 * w
    trained, _ = huge(LstConfig())
    assert trained == DECODER + rungs * (c * w + w + 1 + attention + mlp + norms) + w * c + c == 11_492_000
    assert f"{trained / 1e6:.2f}" == "11.49"


@pytest.mark.parametrize(("ratio", "reduction", "count"), [(4, 12, 13_104_800), (4, 13, 11_143_840)])
def test_an_mlp_like_the_encoders_misses_the_papers_count(ratio, reduction, count):
    assert huge(LstConfig(mlp_ratio=ratio, reduction=reduction))[0] == count


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reduction": 0}, "reduction=0 must be an integer of at least 1"),
        ({"mlp_ratio": 1.5}, "mlp_ratio=1.5 must be an integer of at least 1"),
    ],
)
def test_bad_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        LstConfig(**values)


@pytest.mark.parametrize("blocks", [[2], [], [-1]])
def test_rungs_beside_blocks_that_are_not_there_are_refused(blocks):
    with pytest.raises(ValueError, match="this encoder has blocks 0 to 1"):
        tuned(LstConfig(layers_to_transform=blocks))
