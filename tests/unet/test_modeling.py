import sys

import pytest
import torch

from convlora.errors import SettingsError
from convlora.objectives.losses import get_loss
from convlora.unet import UNetForSemanticSegmentation, UNetSegmentationConfig

TWO = {0: "background", 1: "leaf"}
THREE = {0: "background", 1: "leaf", 2: "stem"}


def test_it_is_monais_network_of_1_625_420_parameters_with_logits_of_the_inputs_size():
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    model = UNetForSemanticSegmentation(UNetSegmentationConfig(id2label=TWO)).eval()
    assert sum(p.numel() for p in model.parameters()) == 1_625_420
    torch.manual_seed(0)
    expected = UNet(
        spatial_dims=2,
        in_channels=3,
        out_channels=1,
        channels=(16, 32, 64, 128, 256),
        strides=(2, 2, 2, 2),
        num_res_units=2,
    ).eval()
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(pixels).logits, expected(pixels))


@pytest.mark.parametrize(("id2label", "loss", "masks"), [(TWO, "structure", 1), (THREE, "dice-ce", 3)])
def test_the_loss_is_the_one_that_was_named_over_the_pixels_that_count(id2label, loss, masks):
    torch.manual_seed(0)
    model = UNetForSemanticSegmentation(UNetSegmentationConfig(id2label=id2label, loss=loss)).eval()
    labels = torch.randint(0, masks + (masks == 1), (2, 64, 64))
    labels[:, :8] = 255
    output = model(torch.randn(2, 3, 64, 64), labels=labels)
    assert output.logits.shape == (2, masks, 64, 64)
    torch.testing.assert_close(output.loss, get_loss(loss)(output.logits, labels, 255))
    output.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("id2label", "loss"), [(TWO, "structure"), (THREE, "dice-ce")])
def test_a_blank_one_answers_nothing_and_has_the_defaults(id2label, loss):
    model = UNetForSemanticSegmentation.blank(id2label)
    assert not any(p.any() for p in model.parameters())
    assert (model.config.image_size, model.config.loss, model.config.name_or_path) == (512, loss, "unet")
    assert dict(model.config.id2label) == id2label


@pytest.mark.parametrize("size", [0, 16, 40, 100])
def test_an_input_size_that_it_cannot_halve_is_refused(size):
    with pytest.raises(SettingsError, match=rf"image_size={size} must be a multiple of 16 of at least 32.*such as \d+"):
        UNetForSemanticSegmentation.blank(TWO, image_size=size)


def test_a_binary_loss_for_three_classes_is_refused():
    with pytest.raises(SettingsError, match="dice-ce"):
        UNetForSemanticSegmentation.blank(THREE, loss="structure")


def test_without_monai_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(SettingsError, match=r"needs MONAI, which is not installed. Install convlora\[unet\]"):
        UNetForSemanticSegmentation.blank(TWO)
