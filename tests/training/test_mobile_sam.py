import numpy as np
import pytest
from PIL import Image

from convlora.adapter.saving import load_tensors
from convlora.data.augmentation.settings import AugmentationSettings
from convlora.inference.predictor import Predictor
from convlora.sam import checkpoints
from convlora.training.run import train
from convlora.training.settings import AdapterSettings
from tests.sam.mobile import small_mobile_sam
from tests.training.runs import quick_settings


@pytest.fixture(scope="module")
def place(workspace, tmp_path_factory):
    """Runs on a small MobileSAM that is found by its name."""
    folder = tmp_path_factory.mktemp("mobile")
    small_mobile_sam().save_pretrained(folder / "convlora" / "mobile-sam")
    (folder / "data").symlink_to(workspace / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "user_cache_path", lambda name: folder / name)
        yield folder


@pytest.fixture(scope="module")
def plain(place):
    return train(quick_settings(place, "plain", model="mobile-sam", epochs=4))


def losses(run):
    return [entry["loss"] for entry in run.read_log() if "loss" in entry]


def test_a_run_on_mobile_sam_learns_and_its_folder_alone_predicts(plain, place, tmp_path, monkeypatch):
    curve = losses(plain)
    assert len(curve) == 12 and sum(curve[-3:]) < sum(curve[:3])
    monkeypatch.chdir(tmp_path)
    predictor = Predictor.from_folder(plain.adapter, device="cpu")
    assert predictor.model.get_base_model().config.name_or_path == "mobile-sam"
    image = np.asarray(Image.open(next((place / "data" / "images").iterdir())))
    assert predictor(image).shape == image.shape[:2]


@pytest.mark.parametrize(
    ("change", "tolerance"), [({"gradient_checkpointing": True}, 1e-5), ({"precision": "bf16"}, 0.05)]
)
def test_recomputation_and_low_precision_follow_the_same_curve(plain, place, change, tolerance):
    run = train(quick_settings(place, next(iter(change)), model="mobile-sam", epochs=4, **change))
    assert losses(run) == pytest.approx(losses(plain), rel=tolerance)


def test_frozen_blocks_are_computed_once_and_change_nothing(place):
    same = {
        "model": "mobile-sam",
        "adapter": AdapterSettings(blocks=2),
        "augmentation": AugmentationSettings(enabled=False),
    }
    events = []
    cached = train(quick_settings(place, "cached", **same), events.append)
    assert [event.frozen_blocks for event in events if hasattr(event, "frozen_blocks")] == [3]
    uncached = train(quick_settings(place, "uncached", prefix_cache_gb=0.0, **same))
    assert losses(cached) == pytest.approx(losses(uncached), rel=1e-4)


def test_full_tuning_saves_the_encoder(place):
    run = train(quick_settings(place, "full", model="mobile-sam", method="full", max_steps=1))
    saved = load_tensors(run.adapter / "adapter_model.safetensors")
    own = small_mobile_sam().vision_encoder.state_dict()
    tuned = {name.split("vision_encoder.")[-1]: value for name, value in saved.items() if "vision_encoder." in name}
    assert set(own) == set(tuned)
    assert not (own["layers.0.attn.attention_biases"] == tuned["layers.0.attn.attention_biases"]).all()
