import dataclasses

import pytest
import torch

from convlora import SamForSemanticSegmentation
from convlora.data.augmentation.settings import AugmentationSettings
from convlora.sam.prefix import encode_prefix, encode_rest, frozen_blocks
from convlora.training.methods import apply_method
from convlora.training.prefix_cache import PrefixCache, digest
from convlora.training.run import train
from convlora.training.settings import AdapterSettings
from tests.sam.models import small_sam
from tests.training.runs import quick_settings

STILL = AugmentationSettings(enabled=False)


def encoder(seed=0):
    return small_sam(seed).vision_encoder.requires_grad_(False)


def cache(folder, blocks=1, max_bytes=10**9, seed=0):
    return PrefixCache(folder, encoder(seed), blocks, "fp32", max_bytes)


def states(kept, whole, pixels):
    return kept.states(whole, pixels, [digest(image) for image in pixels])


@pytest.mark.parametrize(
    ("method", "blocks", "want"),
    [("conv-lora", None, 0), ("conv-lora", 1, 1), ("lora", [1], 1), ("decoder", None, 2), ("full", None, 0)],
)
def test_frozen_blocks_are_those_before_the_first_trained_one(method, blocks, want):
    model = apply_method(SamForSemanticSegmentation.from_sam(small_sam()), method, AdapterSettings(blocks=blocks))
    assert frozen_blocks(model.get_base_model().sam.vision_encoder) == want


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_the_two_parts_of_the_encoder_give_its_embedding(blocks):
    whole, pixels = encoder(), torch.randn(2, 3, 64, 64)
    want = whole(pixels).last_hidden_state
    assert torch.equal(encode_rest(whole, encode_prefix(whole, pixels, blocks), blocks), want)


def test_an_image_is_computed_once_whatever_its_batch(tmp_path):
    kept, whole = cache(tmp_path), encoder()
    pixels = torch.randn(3, 3, 64, 64)
    first = states(kept, whole, pixels)
    assert kept.computed == 3
    again = states(cache(tmp_path), whole, pixels[[2, 0]])
    assert torch.equal(again, first[[2, 0]])
    assert states(kept, whole, torch.cat([pixels, pixels[:1] + 1])).shape[0] == 4
    assert kept.computed == 4


def test_in_a_batch_that_is_partly_known_every_image_gets_its_own_answer(tmp_path):
    kept, whole = cache(tmp_path), encoder()
    pixels = torch.randn(3, 3, 64, 64)
    states(kept, whole, pixels[[0, 2]])
    got = states(kept, whole, pixels)  # only the one in the middle is computed now
    assert kept.computed == 3
    torch.testing.assert_close(got, encode_prefix(whole, pixels, 1), rtol=1e-4, atol=1e-4)  # another batch size


def test_other_weights_and_other_blocks_never_meet(tmp_path):
    folders = {cache(tmp_path, blocks, seed=seed).folder for blocks in (1, 2) for seed in (0, 1)}
    assert len(folders) == 4


def test_files_that_another_process_deletes_do_not_end_the_run(tmp_path, monkeypatch):
    from pathlib import Path

    pixels = torch.randn(2, 3, 64, 64)
    foreign = cache(tmp_path, seed=1)
    states(foreign, encoder(1), pixels)
    real = Path.stat

    def vanishing(self, **kwargs):
        if self.suffix == ".safetensors" and self.parent == foreign.folder:
            raise FileNotFoundError(self)
        return real(self, **kwargs)

    monkeypatch.setattr(Path, "stat", vanishing)
    assert states(cache(tmp_path, max_bytes=1), encoder(), pixels).shape[0] == 2


def test_a_damaged_file_is_computed_again(tmp_path):
    kept, whole, pixels = cache(tmp_path), encoder(), torch.randn(1, 3, 64, 64)
    want = states(kept, whole, pixels)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:50])
    assert torch.equal(states(kept, whole, pixels), want) and kept.computed == 2
    assert torch.equal(states(kept, whole, pixels), want) and kept.computed == 2


def test_it_stays_within_its_bound_and_makes_room_by_deleting_what_other_weights_left(tmp_path):
    pixels = torch.randn(3, 3, 64, 64)
    foreign = cache(tmp_path, seed=1)
    states(foreign, encoder(1), pixels[:1])
    size = foreign.used
    kept = cache(tmp_path, max_bytes=2 * size + 1000)
    states(kept, encoder(), pixels)
    files = list(tmp_path.rglob("*.safetensors"))
    assert len(files) == 2 and all(file.parent == kept.folder for file in files)
    assert sum(file.stat().st_size for file in files) <= kept.max_bytes


def test_a_full_disk_ends_the_caching_and_not_the_training(tmp_path, monkeypatch):
    import errno

    from convlora import files

    kept, whole, pixels = cache(tmp_path), encoder(), torch.randn(1, 3, 64, 64)
    want = encode_prefix(whole, pixels, 1)

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "fsync", full)
    assert torch.equal(states(kept, whole, pixels), want)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("method", "blocks", "augmentation"),
    [("conv-lora", 1, STILL), ("decoder", None, STILL), ("decoder", None, AugmentationSettings(views=1))],
)
def test_a_cached_run_gives_the_loss_curve_of_an_uncached_one(workspace, tmp_path, method, blocks, augmentation):
    settings = quick_settings(
        workspace, method=method, augmentation=augmentation, adapter=AdapterSettings(blocks=blocks), epochs=3
    )
    curves = []
    for name, gigabytes in (("plain", 0.0), ("cached", 1.0)):
        changes = {
            "output": str(tmp_path / name),
            "prefix_cache_gb": gigabytes,
            "prefix_cache": str(tmp_path / "cache"),
        }
        run = train(dataclasses.replace(settings, **changes))
        curves.append([entry["loss"] for entry in run.read_log() if "loss" in entry])
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 5  # one for each training image
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)  # batches of another size round differently


def test_the_cache_of_a_run_is_removed_when_it_is_done(workspace):
    run = train(quick_settings(workspace, "cached", method="decoder", augmentation=STILL, max_steps=2))
    assert not run.prefix_cache.exists()
