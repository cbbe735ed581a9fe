import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from convlora import Predictor, SamForSemanticSegmentation, SamSegmentationImageProcessor
from convlora.adapter.saving import load_tensors, save_tensors, sealed
from convlora.data.pixels.statistics import ChannelStatistics, Moments
from convlora.errors import SettingsError, WeightsError
from convlora.files import sha256
from convlora.sam.channels import CHANNEL_KERNEL, as_rgb
from convlora.sam.precision import autocast
from convlora.sam.prefix import frozen_blocks
from convlora.sam.processing import IMAGENET_MEAN, IMAGENET_STD
from convlora.sam.saving import load_segmenter, save_segmenter
from convlora.sam.segmenters import load_base
from convlora.training.methods import apply_method, count_parameters
from convlora.training.settings import METHODS, AdapterSettings
from tests.sam.mobile import small_mobile_sam
from tests.sam.models import small_sam

SAMS = {"sam": small_sam, "mobile-sam": small_mobile_sam}
TUNED = [method for method in METHODS if method not in ("full", "scratch")]


def segmenter(sam="sam", channels=None):
    return SamForSemanticSegmentation.from_sam(SAMS[sam](), channels=channels).eval()


def tuned(method="conv-lora", channels=5, sam="sam"):
    return apply_method(segmenter(sam, channels), method, AdapterSettings(r=2, num_experts=2)).eval()


def pixels(channels, batch=2, size=64, seed=0):
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(seed))


def logits(model, values):
    with torch.inference_mode():
        return model(pixel_values=values).logits


def kernel_of(model):
    (name,) = [n for n, p in model.named_parameters() if CHANNEL_KERNEL in n and p.requires_grad]
    return model.get_parameter(name)


@pytest.mark.parametrize("sam", SAMS)
@pytest.mark.parametrize("channels", [3, 4, 16])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_first_three_of_many_channels_are_rgb_to_sam_bit_for_bit(sam, channels, precision):
    values = pixels(channels)
    with autocast(precision, torch.device("cpu")):
        want, got = logits(segmenter(sam), values[:, :3].contiguous()), logits(segmenter(sam, channels), values)
    assert torch.equal(got, want)


@pytest.mark.parametrize("sam", SAMS)
def test_one_channel_is_grey_to_sam_bit_for_bit_and_two_equal_ones_too(sam):
    grey = pixels(1)
    want = logits(segmenter(sam), grey.repeat(1, 3, 1, 1))
    assert torch.equal(logits(segmenter(sam, 1), grey), want)
    assert torch.equal(logits(segmenter(sam, 2), grey.repeat(1, 2, 1, 1)), want)
    two = pixels(2)
    assert torch.equal(as_rgb(two), torch.stack([two[:, 0], (two[:, 0] + two[:, 1]) / 2, two[:, 1]], 1))


def test_the_embedded_sam_sees_the_same_at_its_own_size():
    options = {"id2label": {0: "background", 1: "leaf"}}
    plain = SamForSemanticSegmentation.from_pretrained("sam-tiny", **options).eval()
    extended = SamForSemanticSegmentation.from_pretrained("sam-tiny", channels=4, **options).eval()
    values = pixels(4, batch=1, size=512)
    assert torch.equal(logits(extended, values), logits(plain, values[:, :3].contiguous()))


@pytest.mark.parametrize("size", [(64, 64), (40, 57), (133, 200)])
@pytest.mark.parametrize("resize", ["longest", "square"])
def test_an_rgb_picture_among_other_channels_gives_its_own_logits_bit_for_bit(size, resize):
    """From the image on: 8-bit resizing and SAM's statistics, as for an RGB picture."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 5), dtype=np.uint8)
    mean, std = ChannelStatistics.of([Moments.of(image)]).normalisation((IMAGENET_MEAN, IMAGENET_STD))
    plain = SamSegmentationImageProcessor(size=64, resize=resize)
    raw = SamSegmentationImageProcessor(size=64, resize=resize, image_mean=mean, image_std=std, channels=5)
    seen, want = raw(image).pixel_values, plain(np.ascontiguousarray(image[..., :3])).pixel_values
    assert torch.equal(seen[:, :3], want)
    assert torch.equal(logits(segmenter(channels=5), seen), logits(segmenter(), want))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
def test_channels_are_resized_and_normalised_without_rounding_to_8_bits(dtype):
    image = (np.random.default_rng(0).normal(size=(100, 70, 5)) * 500 + 3000).astype(dtype)
    mean, std = [10.0 * i + 3000 for i in range(5)], [i + 400.0 for i in range(5)]
    processor = SamSegmentationImageProcessor(size=64, image_mean=mean, image_std=std, channels=5)
    got = processor(image).pixel_values[0]
    want = np.stack(
        [np.asarray(Image.fromarray(c.astype("float32")).resize((45, 64), 2)) for c in image.T.swapaxes(1, 2)]
    )
    want = (want.astype(float) - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    np.testing.assert_allclose(got[:, :, :45], want, atol=1e-5)
    assert not got[:, :, 45:].any() and len(np.unique(got[0])) > 2000


def test_no_data_is_seen_as_the_mean_of_its_channel():
    image = np.random.default_rng(0).normal(size=(64, 64, 2)).astype("float32") + 5
    processor = SamSegmentationImageProcessor(size=64, image_mean=[5, 5], image_std=[1, 2], channels=2)
    hole, filled = image.copy(), image.copy()
    hole[3:9, 4:7, 1], filled[3:9, 4:7, 1] = np.nan, 5
    got = processor(hole).pixel_values
    assert torch.equal(got, processor(filled).pixel_values) and not got[0, 1, 3:9, 4:7].any()


@pytest.mark.parametrize("bad", [np.zeros((4, 4, 3)), np.zeros((4, 4)), np.zeros((4, 4, 5), complex)])
def test_images_of_other_channels_are_refused(bad):
    processor = SamSegmentationImageProcessor(image_mean=[0] * 5, image_std=[1] * 5, channels=5)
    with pytest.raises(ValueError, match=r"images must be real numbers \(H, W, 5\)"):
        processor(bad)
    with pytest.raises(ValueError, match="pixel_values have 3 channels; this model takes 5"):
        segmenter(channels=5)(pixel_values=pixels(3))


@pytest.mark.parametrize("method", TUNED)
def test_every_method_trains_the_new_kernel_and_leaves_sams_own_alone(method):
    model = tuned(method).train()
    if method != "vpt":  # whose prompts are seen from the start
        assert torch.equal(logits(model.eval(), pixels(5)), logits(segmenter(), pixels(5)[:, :3]))
        model.train()
    plain = apply_method(segmenter(), method, AdapterSettings(r=2, num_experts=2))
    extra = 8 * 8 * 2 if method == "sam-adapter" else 0  # it looks at the pixels, too: of 2 more channels, 1 wide
    assert count_parameters(model)[0] - count_parameters(plain)[0] == 5 * 24 * 8 * 8 + extra
    kernel = kernel_of(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(pixel_values=pixels(5), labels=torch.randint(0, 2, (2, 64, 64))).loss.backward()
    assert (kernel.grad.abs().amax((0, 2, 3)) > 0).all()  # of every channel
    optimizer.step()
    assert kernel.any()
    base = model.get_base_model().sam.vision_encoder
    trained = [n for n, p in base.named_parameters() if p.requires_grad and "patch_embed" in n]
    assert all(CHANNEL_KERNEL in n or "ssf" in n or "bitfit" in n for n in trained)
    with model.disable_adapter():  # the untouched SAM again
        assert torch.equal(logits(model.eval(), pixels(5)), logits(segmenter(), pixels(5)[:, :3]))


@pytest.mark.parametrize("method", ["decoder", "conv-lora", "ssf"])
def test_the_kernel_of_mobile_sam_is_trained_too(method):
    model = tuned(method, sam="mobile-sam").train()
    model(pixel_values=pixels(5), labels=torch.randint(0, 2, (2, 64, 64))).loss.backward()
    assert kernel_of(model).shape == (4, 5, 3, 3)
    assert (kernel_of(model).grad.abs().amax((0, 2, 3)) > 0).all()


def test_a_unet_takes_channels_from_its_first_layer_on():
    base = load_base("unet", id2label={0: "background", 1: "leaf"}, image_size=64, channels=7)
    model = apply_method(base, "scratch", AdapterSettings()).eval()
    first = logits(model, pixels(7))
    values = pixels(7)
    values[:, 6] += 1
    assert first.shape == (2, 1, 64, 64) and not torch.equal(logits(model, values), first)


@pytest.mark.parametrize("method", ["full", "scratch"])
def test_methods_that_train_the_whole_encoder_have_the_kernel_in_it(method):
    model = tuned(method)
    assert kernel_of(model).any() == (method == "scratch")
    if method == "full":
        assert torch.equal(logits(model, pixels(5)), logits(segmenter(), pixels(5)[:, :3]))


def test_nothing_before_the_kernel_is_frozen_so_there_is_no_prefix_to_keep():
    for method in ("decoder", "conv-lora"):
        assert frozen_blocks(tuned(method).get_base_model().sam.vision_encoder) == 0


def processor_of(channels=5):
    return SamSegmentationImageProcessor(
        size=64, image_mean=[1.5] * channels, image_std=[2.5] * channels, channels=channels, display_channels=[4, 0, 1]
    )


@pytest.fixture
def saved(workspace, tmp_path):
    base = SamForSemanticSegmentation.from_pretrained(workspace / "sam", channels=5)
    model = apply_method(base, "conv-lora", AdapterSettings(r=2, num_experts=2)).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_segmenter(model, processor_of(), folder)
    return model, folder


def test_a_saved_segmenter_of_channels_loads_to_equal_logits(saved):
    model, folder = saved
    loaded, processor = load_segmenter(folder)
    assert torch.equal(logits(loaded, pixels(5)), logits(model, pixels(5)))
    assert processor.settings() == processor_of().settings()
    assert not any(p.requires_grad for p in loaded.parameters())
    image = np.random.default_rng(0).normal(size=(50, 40, 5))
    assert Predictor.from_folder(folder)(image).shape == (50, 40)


def test_the_code_of_the_card_runs_for_channels_too(saved, monkeypatch):
    _, folder = saved
    first, second = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names = {"image": np.zeros((50, 40, 5), dtype=np.float32)}
    for code in (first, second):
        exec(code.replace("path/to/this/folder", str(folder)), names)
    assert names["ids"].shape == (50, 40)


def change_weights(folder, change):
    """Edit the tensors, and the hashes with care."""
    weights, manifest = folder / "adapter_model.safetensors", folder / "manifest.json"
    tensors = load_tensors(weights)
    change(tensors, next(name for name in tensors if CHANNEL_KERNEL in name))
    save_tensors(tensors, weights)
    values = json.loads(manifest.read_text())
    values["files"][weights.name] = sha256(weights)
    manifest.write_text(json.dumps(sealed(values)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, name: t.pop(name), "channel_kernel.* is missing"),
        (lambda t, name: t.update({name: t[name][:, :4].clone()}), r"channel_kernel.* has shape \(24, 4, 8, 8\)"),
        (lambda t, name: t[name].view(-1)[7].fill_(torch.nan), "channel_kernel.* is not finite"),
        (lambda t, name: t.update({name + "2": t[name].clone()}), "channel_kernel.weight2 is not known"),
    ],
)
def test_a_kernel_that_does_not_fit_is_refused_by_name(saved, change, message):
    _, folder = saved
    change_weights(folder, change)
    with pytest.raises(WeightsError, match=message):
        load_segmenter(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"channels": None, "image_mean": [0.4] * 3, "image_std": [0.2] * 3, "display_channels": None},
            "not known|base",
        ),
        ({"channels": 4, "image_mean": [1.5] * 4, "image_std": [2.5] * 4, "display_channels": None}, "has shape|base"),
        ({"channels": 4}, "image_mean"),
        ({"channels": 0}, "image_mean"),
        ({"channels": True}, "image_mean"),
        ({"channels": "5"}, "image_mean"),
        ({"channels": 10**9}, "image_mean"),
        ({"display_channels": [5]}, "display_channels"),
        ({"image_std": [1.0, 1.0, 1.0, 1.0, 0.0]}, "image_std"),
        ({"image_std": [1.0, 1.0, 1.0, 1.0, float("nan")]}, "image_std"),
    ],
)
def test_a_processor_of_other_channels_than_the_kernel_is_refused(saved, changes, message):
    _, folder = saved
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["metadata"]["processor"].update(changes)
    (folder / "manifest.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(WeightsError, match=message):
        load_segmenter(folder)


def test_a_whole_model_of_channels_is_saved_and_loaded_by_transformers_too(tmp_path):
    model = segmenter(channels=5)
    with torch.no_grad():
        model.sam.vision_encoder.patch_embed.projection.channel_kernel.weight.normal_()
    model.save_pretrained(tmp_path)
    again = SamForSemanticSegmentation.from_pretrained(tmp_path).eval()
    assert again.config.channels == 5 and torch.equal(logits(again, pixels(5)), logits(model, pixels(5)))
    with pytest.raises(SettingsError, match="was saved with channels=5, not 4"):
        SamForSemanticSegmentation.from_pretrained(tmp_path, channels=4)
