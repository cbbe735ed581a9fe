import pytest
import torch

from convlora.sam.mobile_names import fold_batch_norms, order_by_kind, rename
from convlora.sam.tiny_vit import TinyVitAttention, TinyVitConfig, TinyVitEncoder
from convlora.training.methods import draw_weights
from tests.sam.mobile import OfficialEncoder, randomise, small_vision


def of_official(encoder, config):
    """Our encoder with the weights of an official one."""
    state = {f"image_encoder.{name}": value for name, value in encoder.state_dict().items()}
    ours = order_by_kind(rename(fold_batch_norms(state), config), config)
    model = TinyVitEncoder(config).eval()
    model.load_state_dict({name.removeprefix("vision_encoder."): value for name, value in ours.items()})
    return model


# grids of 10, 5 and 5 tokens (a window of 5 is the whole grid); of 8, 4 and 4 (a window is larger than the grid); of
# 14, 7 and 7 (padding everywhere)
@pytest.mark.parametrize("size", [80, 64, 112])
def test_it_equals_a_naive_tiny_vit_with_batch_norms(size):
    config = small_vision(size)
    official = OfficialEncoder(config).eval()
    randomise(official)
    pixels = torch.randn(2, 3, size, size)
    with torch.no_grad():
        want = official(pixels)
        got = of_official(official, config)(pixels).last_hidden_state
    assert got.shape == (2, 32, size // 16, size // 16)
    assert want.std() > 0.1
    torch.testing.assert_close(
        got, want, rtol=1e-4, atol=2e-5
    )  # about 30 layers, each rounding by 2**-24 of values < 4


def test_the_gradients_are_those_of_the_naive_one():
    config = small_vision()
    official = OfficialEncoder(config).eval()
    randomise(official)
    model = of_official(official, config)
    pixels = torch.randn(1, 3, 64, 64)
    weights = torch.randn(1, 32, 4, 4)
    (official(pixels) * weights).sum().backward()
    (model(pixels).last_hidden_state * weights).sum().backward()
    stage = official.layers[2].blocks
    for theirs, ours in ((stage[0], model.layers[2]), (stage[1], model.layers[3])):
        for name in ("attn.attention_biases", "attn.proj.weight"):
            torch.testing.assert_close(
                ours.get_parameter(name).grad, theirs.get_parameter(name).grad, rtol=1e-3, atol=1e-5
            )


def test_the_default_is_mobilesams_tiny_vit_5m():
    with torch.device("meta"):
        encoder = TinyVitEncoder(TinyVitConfig())
        embedding = encoder(torch.empty(1, 3, 1024, 1024)).last_hidden_state
    assert embedding.shape == (1, 256, 64, 64)
    assert sum(p.numel() for p in encoder.parameters()) == 5_738_964  # values in the encoder's published ONNX export
    assert len(encoder.layers) == 10


def test_the_bias_depends_on_the_distance_alone_and_on_each_head():
    attention = TinyVitAttention(8, 2, 4)
    with torch.no_grad():
        attention.attention_biases.copy_(torch.arange(32.0).view(2, 16))
    bias = attention._bias()
    assert bias.shape == (1, 2, 16, 16)
    for query, key in ((0, 0), (0, 7), (7, 0), (13, 2), (15, 0)):
        rows, columns = abs(query // 4 - key // 4), abs(query % 4 - key % 4)
        assert bias[0, 1, query, key] == 16 + 4 * rows + columns


def test_a_fresh_tiny_vit_tells_images_apart():
    encoder = TinyVitEncoder(TinyVitConfig()).eval()  # of the real depth: over a few layers any signal survives
    torch.manual_seed(0)
    draw_weights(encoder)
    with torch.no_grad():
        first, second = (encoder(torch.randn(1, 3, 128, 128)).last_hidden_state for _ in range(2))
    assert (first - second).norm() > 0.3 * first.norm()
