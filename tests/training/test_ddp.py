import os
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from convlora.training.settings import AdapterSettings, as_dict
from tests.training.runs import quick_settings


def step(workspace, name, processes, **changes):
    settings = as_dict(quick_settings(workspace, f"ddp_{name}", max_steps=1, test_fraction=0.0, **changes))
    config, path = workspace / f"ddp_{name}.yaml", workspace / f"ddp_{name}.safetensors"
    config.write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "tests.training.ddp_step", str(config), str(path)]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command[1:1] = launcher
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return load_file(path)


@pytest.mark.parametrize(("method", "head"), [("conv-lora", "classes"), ("full", "classes"), ("decoder", "queries")])
def test_two_processes_give_the_loss_and_gradients_of_one_with_the_doubled_batch(workspace, method, head):
    adapter = AdapterSettings(balance_weight=0.0)  # that loss is not additive over batches
    one = step(workspace, f"{method}_one", 1, batch_size=4, method=method, head=head, adapter=adapter)
    two = step(workspace, f"{method}_two", 2, batch_size=2, method=method, head=head, adapter=adapter)
    assert one.keys() == two.keys() and len(one) > 20
    for name, want in one.items():
        # float32 sums in another order; gradients are clipped to norm 1
        torch.testing.assert_close(two[name], want, rtol=2e-4, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")
    assert any(gradient.abs().max() > 1e-3 for name, gradient in one.items() if name != "loss")
