import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from convlora.errors import WeightsError
from convlora.training import checkpoints


def trained(seed=0):
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=10)
    for _ in range(3):
        model(torch.randn(4, 3)).sum().backward()
        optimizer.step()
        scheduler.step()
    return optimizer, scheduler


def save(folder):
    optimizer, scheduler = trained()
    with checkpoints.sealed_folder(folder) as hidden:
        checkpoints.save_training_state(
            hidden, optimizer=optimizer, scheduler=scheduler, scaler=None, random_states=[checkpoints.random_state()]
        )
    return optimizer, scheduler


def test_optimizer_and_scheduler_come_back_exactly_and_without_pickle(tmp_path):
    folder = tmp_path / "checkpoint-3"
    optimizer, scheduler = save(folder)
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
    fresh, fresh_scheduler = trained(seed=1)
    checkpoints.load_training_state(folder, optimizer=fresh, scheduler=fresh_scheduler, scaler=None)
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            assert torch.equal(fresh.state_dict()["state"][index][name], value)
    groups = [
        json.loads(json.dumps(o.state_dict()["param_groups"])) for o in (fresh, optimizer)
    ]  # betas: a list or not
    assert groups[0] == groups[1]
    assert fresh_scheduler.state_dict() == scheduler.state_dict()


def test_all_random_generators_continue_where_they_were(tmp_path):
    folder = tmp_path / "checkpoint-3"
    save(folder)
    want = random.random(), np.random.rand(), torch.rand(3)
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    checkpoints.restore_random_state(folder, rank=0)
    got = random.random(), np.random.rand(), torch.rand(3)
    assert got[:2] == want[:2] and torch.equal(got[2], want[2])


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
@pytest.mark.parametrize("name", [checkpoints.OPTIMIZER_FILE, checkpoints.STATE_FILE, checkpoints.SEAL_FILE])
def test_a_checkpoint_with_any_damage_is_not_complete(tmp_path, name, damage):
    folder = tmp_path / "checkpoint-3"
    save(folder)
    assert checkpoints.is_complete(folder)
    data = bytearray((folder / name).read_bytes())
    if damage == "missing":
        (folder / name).unlink()
    elif damage == "truncated":
        (folder / name).write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
    assert not checkpoints.is_complete(folder)


def test_the_newest_complete_checkpoint_is_found_by_number_not_by_name(tmp_path):
    for step in (2, 10, 9):
        save(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-11").mkdir()
    (tmp_path / "checkpoint-x").mkdir()
    assert checkpoints.newest_complete(tmp_path).name == "checkpoint-10"
    assert checkpoints.newest_complete(tmp_path / "none") is None


def test_old_checkpoints_go_and_the_best_stays(tmp_path):
    for name in ("1", "2", "3", "4", "60", "mine"):
        (tmp_path / f"checkpoint-{name}").mkdir()
    checkpoints.remove_old(tmp_path, keep=1, best_step=2, step=4)
    # 60 is what a run left damaged that was continued from an earlier step
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-4", "checkpoint-mine"}


def test_another_number_of_threads_is_told(tmp_path):
    folder = tmp_path / "checkpoint-3"
    save(folder)
    assert checkpoints.difference(folder) is None
    state = json.loads((folder / checkpoints.STATE_FILE).read_text())
    (folder / checkpoints.STATE_FILE).write_text(json.dumps({**state, "torch_threads": 77}))
    assert "77 thread(s)" in checkpoints.difference(folder)


def test_a_state_of_another_model_is_refused(tmp_path):
    folder = tmp_path / "checkpoint-3"
    save(folder)
    other = torch.optim.AdamW(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)).parameters())
    scheduler = torch.optim.lr_scheduler.LinearLR(other)
    with pytest.raises(WeightsError, match=r"does not fit this run"):
        checkpoints.load_training_state(folder, optimizer=other, scheduler=scheduler, scaler=None)


def test_a_failed_checkpoint_leaves_the_old_one_and_no_other_file(tmp_path):
    folder = tmp_path / "checkpoint-3"
    save(folder)
    with pytest.raises(RuntimeError), checkpoints.sealed_folder(folder) as hidden:
        (hidden / "part").write_text("half")
        raise RuntimeError
    assert checkpoints.is_complete(folder) and [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
