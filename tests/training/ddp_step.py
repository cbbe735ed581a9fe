"""One training step in as many processes as torchrun started; writes the loss and gradients of the first one."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch import nn
from transformers import TrainerCallback

from convlora.data.findings.checking import check_data
from convlora.training.build import build_model, build_trainer
from convlora.training.folder import RunFolder
from convlora.training.run import leave_process_group
from convlora.training.settings import from_dict
from convlora.training.split import Split


class Record(TrainerCallback):
    def __init__(self, model, path):
        self.model, self.path = model, path
        self.tensors = {}

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.tensors = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.requires_grad}

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs and state.is_world_process_zero:
            save_file({**self.tensors, "loss": torch.tensor(logs["loss"])}, self.path)


def main(config, path):
    settings = from_dict(yaml.safe_load(Path(config).read_text()), source=config)
    checked = check_data(settings)
    split = Split(checked.splits, checked.labels)
    tuned = build_model(settings, split)
    torch.manual_seed(1)
    for name, parameter in tuned[0].named_parameters():
        if any(kind in name for kind in ("lora_B", "lora_gate", "lora_noise")):
            nn.init.normal_(parameter, std=0.3)
    torch.randn_like = torch.zeros_like  # each process would draw other gate noise
    trainer = build_trainer(RunFolder(settings.output), settings, split, tuned, lambda event: None)
    trainer.add_callback(Record(trainer.model, path))
    trainer.train()


def gloo_threads():
    names = [task.read_text() for task in Path("/proc/self/task").glob("*/comm")]
    return sum("gloo" in name for name in names)


if __name__ == "__main__":
    main(*sys.argv[1:])
    threads = gloo_threads()
    leave_process_group()
    if threads and gloo_threads():
        sys.exit("threads of gloo are left: at the end of the interpreter they may abort it")
