"""What happens between steps: epochs, logs, early stopping, interruption, checks."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from convlora.adapter import ConvLoraLinear
from convlora.adapter.usage import choosing_layers, expert_usage
from convlora.data.dataset import EpochSampler
from convlora.files import append_json_line
from convlora.objectives.metrics import best
from convlora.training.events import Progress, Report

if TYPE_CHECKING:
    from convlora.training.folder import RunFolder


_USAGE_LINES = 100  # of a run; as many columns as a heat map can show


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and saved a checkpoint first."""


class FollowEpoch(TrainerCallback):
    """Tell the sampler the epoch, also when a run continues in the middle of one."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Set the epoch before the loader starts to draw."""
        self.sampler.set_epoch(int(state.epoch or 0))


class JsonLinesLog(TrainerCallback):
    """Append every log entry to the run's log.jsonl."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write one line; Trainer's closing summary is left out, because a resumed run would repeat it."""
        if state.is_world_process_zero and logs and "train_runtime" not in logs:
            self.folder.append_log({"step": state.global_step, **logs})


class RoutingUsage(TrainerCallback, ExportableState):
    """Write to the run's routing.jsonl how much each expert of each Conv-LoRA layer was used in training.

    Counted are the choices of the training passes, gate noise included; in a distributed run those of the main process.
    The sums stay on the device and are read about a hundred times in a run. They travel in the checkpoints, so that a
    run that continues writes the lines of an uninterrupted one.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.layers: dict[str, ConvLoraLinear] = {}
        self.sums = torch.empty(0)  # (layers, experts), since the last line

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: nn.Module, **kwargs: Any) -> None:
        """Find the layers, and go on from the checkpoint's sums."""
        if not state.is_world_process_zero:
            return
        self.layers = choosing_layers(model)
        if self.layers:
            experts = {len(layer.conv_lora[layer.active_adapters[0]].scales) for layer in self.layers.values()}
            saved = state.stateful_callbacks.get(type(self).__name__, self.state())["attributes"]["sums"]
            sums = torch.tensor(saved) if saved else torch.zeros(len(self.layers), max(experts))
            self.sums = sums.to(args.device)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count a batch before the last one of a step."""
        if self.layers:
            self.sums += torch.stack([expert_usage(layer) for layer in self.layers.values()])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the last batch of a step, and write a line when it is time."""
        self.on_substep_end(args, state, control)
        every = -(-state.max_steps // _USAGE_LINES)
        if self.layers and (state.global_step % every == 0 or state.global_step >= state.max_steps):
            names = [path.rpartition("vision_encoder.")[2] for path in self.layers]
            usage = dict(zip(names, self.sums.tolist(), strict=True))
            append_json_line(self.folder.routing, {"step": state.global_step, "usage": usage})
            self.sums.zero_()

    def state(self) -> dict[str, Any]:
        """The sums, for a checkpoint (transformers' hook)."""
        return {"args": {}, "attributes": {"sums": self.sums.tolist()}}


class ReportProgress(TrainerCallback):
    """Call a function after each step and validation."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Pass on losses and scores."""
        if not state.is_world_process_zero or not logs:
            return
        scores = {name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")}
        if "loss" in logs or scores:
            self.report(Progress(state.global_step, state.max_steps, state.epoch, logs.get("loss"), scores or None))


class EarlyStopping(TrainerCallback):
    """Stop after so many validations without a better score; derived from the log, so it survives a resume."""

    def __init__(self, metric: str, patience: int) -> None:
        self.metric = metric
        self.patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the validations since the best."""
        if self.exhausted(state.log_history):
            control.should_training_stop = True

    def exhausted(self, log_history: list[dict[str, Any]]) -> bool:
        """Whether the last `patience` validations brought nothing better."""
        name = f"eval_{self.metric}"
        scores = [entry[name] for entry in log_history if name in entry]
        return bool(scores) and len(scores) - 1 - scores.index(best(scores, self.metric)) >= self.patience


class FinalEvaluation(TrainerCallback):
    """Validate and save at the last step, whatever the interval."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for both."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = args.eval_strategy != "no"
            control.should_save = True


class StopOnSignal(TrainerCallback):
    """On Ctrl-C or SIGTERM finish the step, save, and leave with `Interrupted`; a second Ctrl-C leaves at once."""

    def __init__(self) -> None:
        self.requested = False

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint, in all processes if one of them was asked to stop."""
        if distributed.is_initialized():
            requested = torch.tensor(int(self.requested), device=args.device)
            distributed.all_reduce(requested, distributed.ReduceOp.MAX)
            self.requested = bool(requested.item())
        if self.requested:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave, now that the checkpoint is there."""
        if self.requested and state.global_step < state.max_steps:
            raise Interrupted(f"stopped after step {state.global_step} of {state.max_steps}")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to signals while the block runs; only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in signals}
        for number in signals:
            signal.signal(number, self._request)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
