import pytest
import yaml

from convlora.data.catalog.sets import SETS
from convlora.errors import SettingsError
from convlora.reproduction.published import PUBLISHED
from convlora.settings import from_arguments
from convlora.training.presets import preset, preset_path, with_preset
from convlora.training.settings import TrainSettings

OWN = {"images": "x.csv", "output": "run"}


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_the_papers_settings(name):
    found = preset(name, **OWN)
    assert found.model == "facebook/sam-vit-huge" and found.resize == "square"
    assert (found.batch_size, found.weight_decay, found.max_grad_norm, found.warmup) == (4, 1e-4, 1.0, 0.0)
    assert (found.adapter.r, found.adapter.num_experts, found.adapter.lora_alpha) == (3, 8, 32)
    moved = {key: value for key, value in vars(found.augmentation).items() if value not in (0, False, None)}
    assert moved == {"enabled": True, "flip_horizontal": True}
    assert found.learning_rate == (3e-4 if name in ("leaf", "road") else 1e-4)
    assert found.epochs == {"sbu-shadow": 10, "camo": 20, "road": 20}.get(name, 30)
    assert found.loss == {"sbu-shadow": "balanced-bce", "trans10k": "set"}.get(name, "structure")
    assert found.metric == (PUBLISHED[name].picked_by or "iou")
    assert found.head == ("queries" if name == "trans10k" else "classes")
    assert len(found.classes) == (12 if name == "trans10k" else 2)
    assert found.mask_format == ("binary" if SETS[name].binary else "ids")


@pytest.mark.parametrize("name", SETS)
def test_the_file_names_itself_in_the_command_that_uses_it(name):
    text = preset_path(name).read_text(encoding="utf-8")
    assert f"--preset {name} --images data/{name}/samples.csv" in text
    assert set(yaml.safe_load(text)).isdisjoint({"images", "output", "method", "seed"})


def test_changes_are_checked():
    assert preset("polyp", **OWN, epochs=2).epochs == 2
    with pytest.raises(SettingsError, match=r"polyp.yaml: unknown setting 'epoch'"):
        preset("polyp", **OWN, epoch=2)


@pytest.mark.parametrize("given", [["--preset", "leaf"], ["--preset=leaf"]])
def test_flags_override_a_preset_wherever_it_stands(given):
    flags = ["--images", "x.csv", "--epochs", "2", "--adapter.r", "5"]
    for arguments in ([*flags, *given, "--output", "run"], [*given, *flags, "--output", "run"]):
        found = from_arguments(TrainSettings, with_preset(arguments), prog="p", description="")
        assert found == preset("leaf", **OWN, epochs=2, adapter={**vars(preset("leaf", **OWN).adapter), "r": 5})


def test_a_preset_without_a_name_or_of_no_set_is_told():
    for arguments in (["--preset"], ["--preset", "--epochs", "2"]):
        with pytest.raises(SettingsError, match="setting 'preset' has no value"):
            with_preset(arguments)
    with pytest.raises(SettingsError, match=r"there is no set 'polyps'.*Did you mean 'polyp'"):
        with_preset(["--preset", "polyps"])
    assert with_preset(["--epochs", "2"]) == ["--epochs", "2"]
