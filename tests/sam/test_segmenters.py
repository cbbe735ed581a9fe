import subprocess
import sys

import pytest

from convlora import SamForSemanticSegmentation
from convlora.errors import SettingsError
from convlora.sam.segmenters import image_encoder, load_base, make_processor
from convlora.unet import UNetForSemanticSegmentation

THREE = {0: "background", 1: "leaf", 2: "stem"}


def test_a_sam_is_loaded_with_its_classes_and_its_processor(workspace):
    name = str(workspace / "sam")
    model = load_base(name, id2label=THREE, loss="dice-ce", image_size=32, ignore_index=7)
    assert isinstance(model, SamForSemanticSegmentation) and dict(model.config.id2label) == THREE
    processor = make_processor(name, model, resize="square")
    assert (processor.size, processor.resize, processor.ignore_index) == (32, "square", 7)
    assert image_encoder(model) is model.sam.vision_encoder


def test_unet_is_monais_with_the_same_processor():
    model = load_base("unet", id2label=THREE, image_size=64, ignore_index=7)
    assert isinstance(model, UNetForSemanticSegmentation) and model.config.semantic_loss_ignore_index == 7
    processor = make_processor("unet", model, resize="longest")
    assert (processor.size, processor.resize, processor.ignore_index) == (64, "longest", 7)
    assert image_encoder(model) is None


def test_a_unet_has_no_head_of_queries():
    with pytest.raises(SettingsError, match="model='unet' has head='classes' alone"):
        load_base("unet", id2label=THREE, head="queries", num_queries=5)


def test_monai_is_imported_only_where_a_unet_is_made():
    code = "import sys, convlora.sam.segmenters; sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
