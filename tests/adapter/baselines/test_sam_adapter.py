import numpy as np
import pytest
import torch
import torch.nn.functional as F

from convlora.adapter.baselines import SamAdapterConfig
from convlora.adapter.baselines.sam_adapter import high_frequencies
from tests.adapter.baselines.segmenters import DECODER, SAM, huge, pixels, segmenter, tuned


def encoder_of(model):
    return model.get_base_model().sam.vision_encoder


def high_pass(image, ratio):
    """numpy: shift frequency 0 to the middle, blank the square around it, go back."""
    height, width = image.shape
    spectrum = np.fft.fftshift(np.fft.fft2(image))
    rows, columns = np.mgrid[:height, :width]
    half_rows, half_columns = height * np.sqrt(ratio) / 2, width * np.sqrt(ratio) / 2
    low = (np.abs(rows - height // 2) < half_rows) & (np.abs(columns - width // 2) < half_columns)
    spectrum[low] = 0
    return np.abs(np.fft.ifft2(np.fft.ifftshift(spectrum)).real)


@pytest.mark.parametrize("size", [(16, 16), (15, 20), (32, 9)])
@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 0.7])
def test_high_frequencies_equal_numpys(size, ratio):
    images = np.random.default_rng(0).normal(size=(2, 3, *size))
    got = high_frequencies(torch.from_numpy(images), ratio).numpy()
    want = np.stack([[high_pass(channel, ratio) for channel in image] for image in images])
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_waves_pass_if_they_are_short_enough_and_flat_areas_never():
    x = torch.arange(32) / 32 * 2 * torch.pi
    for cycles, passes in ((0, False), (7, False), (8, True), (15, True)):  # a quarter of the spectrum ends at 8 of 32
        wave = torch.cos(cycles * x)[None, None, None].expand(1, 1, 32, 32)
        want = wave.abs() if passes else torch.zeros_like(wave)
        torch.testing.assert_close(high_frequencies(wave, 0.25), want, rtol=0, atol=1e-5)


def test_half_precision_images_are_filtered_in_float32():
    images = pixels().to(torch.bfloat16)
    assert torch.equal(high_frequencies(images, 0.25), high_frequencies(images.float(), 0.25))


def test_it_starts_as_the_base_model_to_the_bit():
    with torch.no_grad():
        want = segmenter()(pixels()).logits
        assert torch.equal(tuned(SamAdapterConfig(reduction=4), trained=False)(pixels()).logits, want)


def test_every_block_gets_its_prompt_as_the_paper_says():
    encoder = encoder_of(tuned(SamAdapterConfig(reduction=4)))
    plain, weights = segmenter().sam.vision_encoder, encoder.sam_adapter_prompts["default"]
    with torch.no_grad():
        patches = plain.patch_embed(pixels())
        details = F.conv2d(
            torch.from_numpy(np.stack([[high_pass(c, 0.25) for c in image] for image in pixels().numpy()])).float(),
            weights.frequencies.weight,
            weights.frequencies.bias,
            stride=8,
        )
        information = patches @ weights.embedding.weight.T + weights.embedding.bias + details.permute(0, 2, 3, 1)
        states = patches + plain.pos_embed
        for i, block in enumerate(plain.layers):
            tune = weights.tune[str(i)]
            hidden = F.gelu(information @ tune.weight.T + tune.bias)
            states = block(states + hidden @ weights.up.weight.T + weights.up.bias)
        want = plain.neck(states)
        torch.testing.assert_close(encoder(pixels()).last_hidden_state, want, rtol=1e-4, atol=1e-4)


def test_blocks_that_are_left_out_get_no_prompt():
    encoder = encoder_of(tuned(SamAdapterConfig(reduction=4, layers_to_transform=[1])))
    plain, seen = segmenter().sam.vision_encoder, []
    for part in (encoder.base_layer, plain):
        for layer in part.layers:
            layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        encoder(pixels())
        plain(pixels())
    assert torch.equal(seen[0], seen[2]) and not torch.allclose(seen[1], seen[3])


def test_the_default_trains_a_bottleneck_of_80_in_vit_h():
    c, w, blocks = 1280, 80, 32
    trained, _ = huge(SamAdapterConfig())
    embedding, frequencies, up = c * w + w, 3 * 16 * 16 * w + w, w * c + c
    assert trained == DECODER + embedding + frequencies + blocks * (w * w + w) + up == 3_980_576
    assert f"{trained / SAM:.2%}" == "0.62%"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"reduction": 0}, "reduction=0 must be an integer of at least 1"),
        ({"frequency_ratio": 1.0}, "frequency_ratio=1.0 must be at least 0, below 1"),
        ({"frequency_ratio": float("nan")}, "frequency_ratio=nan must be at least 0, below 1"),
    ],
)
def test_bad_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        SamAdapterConfig(**values)
