import json
import re

import numpy as np
import pytest
import torch

from convlora import Predictor
from convlora.adapter.saving import sealed
from convlora.data.labels.bits import IGNORED, bit, pack
from convlora.errors import SettingsError, WeightsError
from convlora.objectives.losses import get_loss
from convlora.sam import SamForSemanticSegmentation
from convlora.sam.saving import load_segmenter, save_segmenter
from convlora.sam.segmenters import load_base, make_processor
from convlora.training.methods import apply_method
from convlora.training.settings import AdapterSettings

NAMES = {0: "background", 1: "leaf", 2: "stem", 3: "spot"}
COLOURS = [[0, 0, 0], [255, 0, 0], [0, 255, 0], [1, 2, 3]]


def segmenter(location):
    torch.manual_seed(0)
    base = load_base(str(location), id2label=NAMES, multilabel=True, colours=COLOURS, ignore_index=IGNORED)
    processor = make_processor(str(location), base, resize="longest")
    model = apply_method(base, "lora", AdapterSettings(r=2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    return model, processor


def test_each_class_but_the_background_has_a_mask_and_a_loss_of_its_own(workspace):
    model = SamForSemanticSegmentation.from_pretrained(workspace / "sam", id2label=NAMES, multilabel=True)
    assert model.config.loss == "dice-bce" and model.config.num_masks == 3
    size = model.config.vision_config.image_size
    labels = torch.randint(0, 8, (2, size, size), generator=torch.Generator().manual_seed(0))
    output = model(pixel_values=torch.randn(2, 3, size, size), labels=labels)
    assert output.logits.shape[:2] == (2, 3)
    full = torch.nn.functional.interpolate(output.logits, size=(size, size), mode="bilinear", align_corners=False)
    want = get_loss("dice-bce", multilabel=True)(full, labels, 255)
    torch.testing.assert_close(output.loss, want)


def test_logits_become_bit_fields_and_probabilities_of_each(workspace):
    _, processor = segmenter(workspace / "sam")
    logits = torch.randn(3, 8, 9, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(processor.classes_of(logits).numpy(), pack((logits > 0).numpy()))
    probabilities = processor.probabilities_of(logits)
    torch.testing.assert_close(probabilities[1:], logits.sigmoid())
    np.testing.assert_array_equal((probabilities[0] > 0.5).numpy(), processor.classes_of(logits).numpy() == 0)


def test_a_saved_one_loads_with_its_task_and_its_colours(workspace, tmp_path):
    model, processor = segmenter(workspace / "sam")
    save_segmenter(model, processor, tmp_path)
    predictor = Predictor.from_folder(tmp_path, precision="fp32")
    assert predictor.multilabel and predictor.colours == {i: tuple(c) for i, c in enumerate(COLOURS)}
    assert predictor.id2label == NAMES and predictor.processor.ignore_index == IGNORED
    image = np.random.default_rng(0).integers(0, 255, (30, 44, 3), dtype=np.uint8)
    direct = Predictor(model, processor)
    np.testing.assert_array_equal(predictor.probabilities(image), direct.probabilities(image))
    fields = predictor(image)
    assert fields.dtype == np.int32 and fields.shape == (30, 44)
    probabilities = predictor.probabilities(image)
    for class_id in (1, 2, 3):
        np.testing.assert_array_equal(fields & bit(class_id) != 0, probabilities[class_id] > 0.5)
    card = (tmp_path / "README.md").read_text()
    assert "int32 (H, W), bit c - 1 where class c is" in card and "multilabel=True" in card


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("colours", [[0, 0, 0]]),
        ("colours", [[0, 0, 256]] * 4),
        ("colours", [[0, 0, 0.5]] * 4),
        ("colours", "red"),
        ("processor.multilabel", "yes"),
    ],
)
def test_a_changed_task_or_colour_is_refused(workspace, tmp_path, key, value):
    save_segmenter(*segmenter(workspace / "sam"), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    *group, name = key.split(".")
    (manifest["metadata"][group[0]] if group else manifest["metadata"])[name] = value
    (tmp_path / "manifest.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(WeightsError, match=rf"does not describe a segmenter: {re.escape(key)}="):
        load_segmenter(tmp_path)


def test_what_makes_no_sense_with_it_is_refused(workspace):
    def load(**options):
        return SamForSemanticSegmentation.from_pretrained(workspace / "sam", id2label=NAMES, multilabel=True, **options)

    with pytest.raises(SettingsError, match="head='queries' makes classes that exclude each other"):
        load(head="queries")
    for loss in ("structure", "dice-ce", "balanced-bce"):
        with pytest.raises(SettingsError, match="must be one of dice-bce, focal"):
            load(loss=loss)
    with pytest.raises(SettingsError, match="must be 4 finite numbers"):
        load_base(str(workspace / "sam"), id2label=NAMES, multilabel=True, class_weights=[1.0, 2.0])
    with pytest.raises(SettingsError, match="no place in loss='set'"):
        load_base(str(workspace / "sam"), id2label=NAMES, head="queries", class_weights=[1.0] * 4)


def test_the_u_net_has_as_many_masks():
    base = load_base("unet", id2label=NAMES, multilabel=True, image_size=32, class_weights=[0.0, 1.0, 2.0, 1.0])
    output = base(torch.randn(1, 3, 32, 32), labels=torch.full((1, 32, 32), 5))
    assert output.logits.shape == (1, 3, 32, 32) and output.loss.isfinite()
