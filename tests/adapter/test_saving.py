import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from convlora import ConvLoraConfig
from convlora.adapter import load_adapter, save_adapter
from convlora.adapter.reading import NO_TARGET
from convlora.adapter.saving import read_manifest, sealed
from convlora.errors import WeightsError
from convlora.files import sha256
from tests.adapter.models import Vit, adapted, randomise

METADATA = {"metadata": {"name": "x"}}


def base(seed=0):
    torch.manual_seed(seed)
    return Vit()


@pytest.fixture
def saved(tmp_path):
    model = adapted().eval()
    save_adapter(model, tmp_path, metadata={"model": "vit"})
    return model, tmp_path


def reseal(folder):
    """What a hostile author would do: change a file and put its new hash into the manifest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = {name: sha256(folder / name) for name in manifest["files"]}
    path.write_text(json.dumps(sealed(manifest)))


def change_tensors(folder, change):
    state = load_file(folder / "adapter_model.safetensors")
    change(state)
    save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    reseal(folder)


def change_config(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    reseal(folder)


def test_it_loads_to_the_same_answer_and_with_plain_peft_too(saved):
    model, folder = saved
    x = torch.randn(2, 4, 4, 12)
    assert torch.equal(load_adapter(base(), folder).eval()(x), model(x))
    assert torch.equal(PeftModel.from_pretrained(base(), folder).eval()(x), model(x))
    assert read_manifest(folder)["metadata"] == {"model": "vit"}


@pytest.mark.parametrize("trainable", [False, True])
def test_a_loaded_adapter_is_trainable_only_if_asked(saved, trainable):
    model = load_adapter(base(), saved[1], trainable=trainable)
    assert any(p.requires_grad for p in model.parameters()) == trainable


@pytest.mark.parametrize(
    "config", [LoraConfig(r=2, target_modules=["qkv"]), LoraConfig(target_modules=NO_TARGET, modules_to_save=["head"])]
)
def test_plain_lora_and_whole_modules_are_saved_in_the_same_way(tmp_path, config):
    model = get_peft_model(base(), config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    save_adapter(model, tmp_path, metadata={})
    x = torch.randn(2, 4, 4, 12)
    assert torch.equal(load_adapter(base(), tmp_path).eval()(x), model(x))


def test_the_active_adapter_is_saved_whatever_its_name(tmp_path):
    model = adapted().eval()
    model.add_adapter("nuclei", ConvLoraConfig(r=2, target_modules=["qkv"]))
    randomise(model, "nuclei")
    model.set_adapter("nuclei")
    save_adapter(model, tmp_path, metadata={})
    x = torch.randn(2, 4, 4, 12)
    assert torch.equal(load_adapter(base(), tmp_path).eval()(x), model(x))


def test_ranks_by_layer_are_saved_and_loaded_and_patterns_are_refused_when_saving(tmp_path):
    model = adapted(rank_pattern={"blocks.1.qkv": 2}).eval()
    save_adapter(model, tmp_path, metadata={})
    x = torch.randn(2, 4, 4, 12)
    assert torch.equal(load_adapter(base(), tmp_path).eval()(x), model(x))
    with pytest.raises(WeightsError, match=r"target_modules=.* is a pattern"):
        save_adapter(adapted(target_modules=r".*qkv"), tmp_path, metadata={})


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_any_changed_byte_is_refused(saved, tmp_path_factory, name):
    _, folder = saved
    original = (folder / name).read_bytes()
    generator = torch.Generator().manual_seed(0)
    for position in torch.randint(len(original), (20,), generator=generator).tolist():
        changed = bytearray(original)
        changed[position] ^= 1
        (folder / name).write_bytes(changed)
        with pytest.raises(WeightsError, match=f"{name} was changed"):
            load_adapter(base(), folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(sorted(s)[0]), "is missing"),
        (lambda s: s.update(extra=torch.zeros(1)), "tensor extra is not known"),
        (lambda s: s.update({sorted(s)[0]: torch.zeros(1)}), "has shape"),
        (lambda s: s[sorted(s)[0]].view(-1)[:1].fill_(float("nan")), "is not finite"),
        (lambda s: s[sorted(s)[-1]].view(-1)[:1].fill_(float("inf")), "is not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name_even_with_a_forged_hash(saved, change, message):
    _, folder = saved
    change_tensors(folder, change)
    with pytest.raises(WeightsError, match=message + ".*not loaded"):
        load_adapter(base(), folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"target_modules": "(a+)+$"}, "target_modules=.* is a pattern"),
        ({"target_modules": ["(a+)+$"]}, "target_modules=.* is a pattern"),
        ({"rank_pattern": {"(a+)+$": 4}}, "rank_pattern=.* is a pattern"),
        ({"lora_alpha": float("nan")}, "lora_alpha=nan is not finite"),
        ({"peft_type": "EVIL"}, "peft_type='EVIL' is not a known method"),
        ({"routing": "nonsense"}, "routing='nonsense' must be one of"),
        ({"num_experts": 4}, "has shape"),
        ({"target_modules": ["nowhere"]}, "does not fit this base model"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' would change the base weights"),
        ({"peft_type": ["LORA"]}, r"peft_type=\['LORA'\] is not a known method"),
        ({"task_type": "CAUSAL_LM"}, "task_type='CAUSAL_LM' is a task of language models"),
        ({"kernel_size": 3.0}, "kernel_size=3.0 is of the wrong type"),
        ({"r": "3"}, "r='3' is of the wrong type"),
        ({"r": True}, "r=True is of the wrong type"),
        ({"r": 0}, "r=0 must be an integer of at least 1"),
        ({"lora_alpha": "x"}, "lora_alpha='x' is of the wrong type"),
        ({"lora_dropout": "x"}, "lora_dropout='x' is of the wrong type"),
        ({"lora_dropout": 2}, "does not fit this base model"),
        ({"rank_pattern": {"qkv": "x"}}, "rank_pattern=.* must give a whole number"),
        ({"rank_pattern": [1]}, "rank_pattern=.* must give a whole number"),
        ({"alpha_pattern": {"qkv": True}}, "alpha_pattern=.* must give a whole number"),
        ({"layers_to_transform": [0, "a"]}, "layers_to_transform=.* is of the wrong type"),
        ({"r": 10**12}, "r=1000000000000 does not fit adapter_model.safetensors"),
        ({"rank_pattern": {"qkv": 10**12}}, "qkv=1000000000000 does not fit"),
        ({"num_experts": 100_000}, "num_experts=100000 does not fit"),
    ],
)
def test_a_tampered_configuration_is_refused_by_name_even_with_a_forged_hash(saved, values, message):
    _, folder = saved
    change_config(folder, **values)
    with pytest.raises(WeightsError, match=message):
        load_adapter(base(), folder)


def test_an_initialisation_of_plain_lora_that_changes_the_base_is_refused(tmp_path):
    save_adapter(get_peft_model(base(), LoraConfig(r=2, target_modules=["qkv"])), tmp_path, metadata={})
    change_config(tmp_path, init_lora_weights="pissa")
    model = base()
    with pytest.raises(WeightsError, match="would change the base weights"):
        load_adapter(model, tmp_path)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), base().parameters(), strict=True))


def test_another_base_model_is_refused_and_the_same_one_in_bf16_is_not(saved):
    _, folder = saved
    with pytest.raises(WeightsError, match="trained on another base model"):
        load_adapter(base(seed=1), folder)
    load_adapter(base().bfloat16(), folder)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "manifest.json"])
def test_a_missing_file_is_named(saved, name):
    _, folder = saved
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=name):
        load_adapter(base(), folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 99}', '{"format": 1, "files": 3, "base_probe": []}', "[" * 100_000]
)
def test_a_damaged_manifest_is_refused(saved, text):
    _, folder = saved
    (folder / "manifest.json").write_text(text)
    with pytest.raises(WeightsError, match=r"manifest\.json"):
        load_adapter(base(), folder)


def test_a_pickle_in_the_folder_is_not_opened(saved, tmp_path_factory):
    _, folder = saved
    marker = tmp_path_factory.mktemp("marker") / "executed"
    code = f"cposix\nsystem\n(S'touch {marker}'\ntR."
    for name in ("adapter_model.bin", "pytorch_model.bin"):
        (folder / name).write_bytes(code.encode())
    load_adapter(base(), folder)
    shutil.copy(folder / "adapter_model.bin", folder / "adapter_model.safetensors")
    reseal(folder)
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        load_adapter(base(), folder)
    assert not marker.exists()
