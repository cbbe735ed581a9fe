import json
import re
import shutil

import numpy as np
import pytest
import torch
from peft import PeftModel

from convlora import Predictor
from convlora.adapter.saving import sealed
from convlora.errors import WeightsError
from convlora.sam import SamForSemanticSegmentation, SamSegmentationImageProcessor
from convlora.sam.saving import load_segmenter, save_segmenter
from convlora.training.methods import apply_method
from convlora.training.settings import METHODS, AdapterSettings
from tests.sam.models import small_sam


def segmenter(location, method="conv-lora", classes=2, seed=0):
    """A tuned model with weights unlike those at its start, and its processor."""
    torch.manual_seed(seed)
    id2label = dict(enumerate(["background", "leaf", "stem"][:classes]))
    base = SamForSemanticSegmentation.from_pretrained(location, id2label=id2label)
    model = apply_method(base, method, AdapterSettings(r=2, num_experts=2)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    return model, SamSegmentationImageProcessor.from_sam(location, resize="square")


def logits(model):
    size = model.get_base_model().config.vision_config.image_size
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model(pixel_values=pixels).logits


@pytest.fixture
def saved(workspace, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_segmenter(*segmenter(workspace / "sam"), folder)
    return folder


def edit_manifest(folder, change, *, with_care=True):
    """Change the manifest; with care, its own hash too."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(sealed(manifest) if with_care else manifest))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_saved_segmenter_loads_to_equal_logits(workspace, tmp_path, method, classes):
    model, processor = segmenter(workspace / "sam", method, classes)
    save_segmenter(model, processor, tmp_path)
    loaded, loaded_processor = load_segmenter(tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert loaded_processor.settings() == processor.settings()
    assert loaded.get_base_model().config.id2label == model.get_base_model().config.id2label
    assert not loaded.training


def test_a_loaded_segmenter_is_trainable_only_if_asked(saved):
    assert not any(p.requires_grad for p in load_segmenter(saved)[0].parameters())
    names = {n for n, p in load_segmenter(saved, trainable=True)[0].named_parameters() if p.requires_grad}
    assert names and all("lora_" in name or "modules_to_save" in name for name in names)


def test_the_embedded_model_is_recorded_by_its_name(tmp_path):
    save_segmenter(*segmenter("sam-tiny", "decoder"), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["metadata"]["model"] == "sam-tiny"
    for file in ("README.md", "manifest.json", "adapter_config.json", "preprocessor_config.json"):
        assert "/" not in re.sub(r"https?://|path/to/this/folder", "", (tmp_path / file).read_text()).replace(
            "application/", ""
        ), file


def test_a_relative_base_model_is_found_from_another_folder(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(workspace)
    save_segmenter(*segmenter("sam"), tmp_path)
    monkeypatch.chdir(tmp_path)
    load_segmenter(tmp_path)


def test_the_card_registers_the_method_and_names_the_classes(saved):
    card = (saved / "README.md").read_text(encoding="utf-8")
    assert "import convlora.adapter  # registers" in card
    assert "0 background, 1 leaf" in card and "# Segmenter of leaf" in card
    assert "\nbase_model:" not in card  # a local folder is no name on the hub


def test_the_code_of_the_card_runs_and_gives_one_answer(saved, monkeypatch):
    first, second = re.findall(r"```python\n(.*?)```", (saved / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(saved.parent)
    image = np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8)
    names = {"image": image}
    exec(first.replace("path/to/this/folder", "adapter"), names)
    assert names["ids"].shape == (50, 40) and names["ids"].dtype == np.uint8
    exec(second.replace("path/to/this/folder", "adapter"), names)
    assert isinstance(names["model"], PeftModel)
    plain = Predictor.from_folder("adapter", precision="fp32")
    assert torch.equal(logits(names["model"].eval()), logits(plain.model))
    assert (plain(image) == names["ids"]).mean() > 0.95  # the card's predictor may compute in bf16


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("adapter_model.safetensors", r"adapter_model\.safetensors was changed after it was saved"),
        ("adapter_config.json", r"adapter_config\.json was changed after it was saved"),
    ],
)
def test_any_changed_byte_is_refused(saved, file, message):
    data = bytearray((saved / file).read_bytes())
    data[len(data) // 2] ^= 1
    (saved / file).write_bytes(bytes(data))
    with pytest.raises(WeightsError, match=message):
        load_segmenter(saved)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json", "manifest.json"])
def test_a_missing_file_is_named(saved, file):
    (saved / file).unlink()
    with pytest.raises(WeightsError, match=re.escape(file)):
        load_segmenter(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: metadata["processor"].update(image_mean=[0.9, 0.4, 0.4]),
        lambda metadata: metadata["id2label"].update({"1": "stem"}),
        lambda metadata: metadata.update(loss="balanced-bce"),
        lambda metadata: metadata.update(extra=1),
        lambda metadata: metadata.clear(),
    ],
)
def test_changed_metadata_is_refused(saved, change):
    edit_manifest(saved, lambda manifest: change(manifest["metadata"]), with_care=False)
    with pytest.raises(WeightsError, match=r"manifest\.json was changed after it was saved.*Copy it again"):
        load_segmenter(saved)


@pytest.mark.parametrize("metadata", [[], None, 3, "text"])
def test_metadata_of_another_kind_is_refused(saved, metadata):
    edit_manifest(saved, lambda manifest: manifest.update(metadata=metadata))
    with pytest.raises(WeightsError, match=r"manifest\.json does not describe a segmenter"):
        load_segmenter(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"processor": {"resize": "round"}},
        {"processor": 3},
        {"id2label": {"one": "leaf"}},
        {"id2label": ["leaf"]},
        {"id2label": {"0": "background", "1": 5}},
        {"model": 5},
        {"model": None},
        {"model": ["sam-tiny"]},
        {"loss": ["set"]},
        {"head": {}},
        *({"num_queries": value} for value in ("5", 5.0, True, [1])),
    ],
)
def test_metadata_that_make_no_sense_are_refused_even_if_sealed(saved, change):
    edit_manifest(saved, lambda manifest: manifest["metadata"].update(change))
    with pytest.raises(WeightsError, match=r"manifest\.json does not describe a segmenter"):
        load_segmenter(saved)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("size", value) for value in ("64", 64.0, -64, 0, True, None)),
        ("resize", ["square"]),
        *(("image_mean", value) for value in ("abc", [0], None, [0, 0, float("nan")], ["a", "b", "c"])),
        *(("image_std", value) for value in ([0, 0, 0], [1, 1, -1], None)),
        *(("ignore_index", value) for value in ("x", None, 255.0)),
        ("surprise", 1),
    ],
)
def test_a_processor_that_makes_no_sense_is_refused_even_if_sealed(saved, name, value):
    edit_manifest(saved, lambda manifest: manifest["metadata"]["processor"].update({name: value}))
    with pytest.raises(WeightsError, match=rf"manifest\.json does not describe a segmenter: processor\.{name}"):
        load_segmenter(saved)


def test_another_base_model_is_refused(saved, tmp_path):
    small_sam(seed=1).save_pretrained(tmp_path / "other")
    with pytest.raises(WeightsError, match="trained on another base model"):
        load_segmenter(saved, model=str(tmp_path / "other"))


def test_a_base_model_that_was_moved_is_asked_for(workspace, tmp_path):
    shutil.copytree(workspace / "sam", tmp_path / "sam")
    (tmp_path / "adapter").mkdir()
    model, processor = segmenter(tmp_path / "sam")
    save_segmenter(model, processor, tmp_path / "adapter")
    (tmp_path / "sam").rename(tmp_path / "moved")
    with pytest.raises(WeightsError, match=rf"is not at {tmp_path / 'sam'} any more. Give its place"):
        load_segmenter(tmp_path / "adapter")
    loaded, _ = load_segmenter(tmp_path / "adapter", model=str(tmp_path / "moved"))
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"torn"), "cannot be loaded"),
        (lambda folder: drop_tensor(folder / "model.safetensors"), r"1 tensors are missing, such as .*patch_embed"),
        (lambda folder: (folder / "config.json").write_text("x"), "no SAM checkpoint"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "sam", "vision_config": 3}'), "no SAM"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "vit"}'), "holds a 'vit' model"),
    ],
)
def test_a_damaged_base_model_is_a_weights_error(workspace, tmp_path, damage, message):
    shutil.copytree(workspace / "sam", tmp_path / "sam")
    damage(tmp_path / "sam")
    with pytest.raises(WeightsError, match=message):
        SamForSemanticSegmentation.from_pretrained(tmp_path / "sam")


def drop_tensor(path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    del tensors["vision_encoder.patch_embed.projection.bias"]
    save_file(tensors, path, metadata={"format": "pt"})
