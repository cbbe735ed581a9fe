"""transformers' Trainer, with what segmentation needs and it lacks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState

from convlora.adapter import balance_loss
from convlora.adapter.saving import WEIGHTS_FILE, load_tensors, restore_adapter
from convlora.data.dataset import EpochSampler
from convlora.errors import NonFiniteLossError
from convlora.sam import SamSegmentationImageProcessor
from convlora.sam.saving import save_segmenter
from convlora.training import checkpoints
from convlora.training.callbacks import FollowEpoch
from convlora.training.prefix_cache import PrefixCache, digest

TRAINER_STATE = "trainer_state.json"  # the name that transformers reads


class SegmentationTrainer(Trainer):
    """Adds the balance loss, validation at native size, complete checkpoints, and a stop at non-finite values.

    Args:
        model: A segmenter with a method applied.
        args: Arguments of transformers' Trainer.
        processor: Prepares the images and is saved with the adapter.
        train_dataset: Yields dictionaries with image, mask and name.
        eval_dataset: What `validate` looks at; an empty one means no validation.
        validate: Called for each validation; returns scores by name.
        sampler: Yields the keys of `train_dataset`, epoch by epoch.
        keep_checkpoints: Newest checkpoints to keep, besides the best.
        prefix_cache: Keeps the answers of the encoder's frozen blocks; None computes them each time.
    """

    def __init__(
        self,
        model: PeftModel,
        args: TrainingArguments,
        *,
        processor: SamSegmentationImageProcessor,
        train_dataset: Dataset,
        eval_dataset: Dataset,
        validate: Callable[[nn.Module], dict[str, float]],
        sampler: EpochSampler,
        keep_checkpoints: int,
        prefix_cache: PrefixCache | None = None,
    ) -> None:
        super().__init__(
            model, args, data_collator=self._collate, train_dataset=train_dataset, eval_dataset=eval_dataset
        )
        self.image_processor = processor
        self.validate = validate
        self.sampler = sampler
        self.keep_checkpoints = keep_checkpoints
        self.prefix_cache = prefix_cache
        self.data_wait = 0.0
        self.recent_names: deque[list[str]] = deque(maxlen=args.gradient_accumulation_steps)
        self.parts: list[Tensor] = []
        self.model_accepts_loss_kwargs = False  # each loss is a mean over the batch: divide when accumulating
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(FollowEpoch(sampler))
        self.add_callback(FiniteGradients(self))

    def _collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        batch = self.image_processor([item["image"] for item in items], [item["mask"] for item in items])
        batch = {**batch, "names": [item["name"] for item in items]}
        if self.prefix_cache is not None:  # here, because workers may do it while the GPU computes
            batch["digests"] = [digest(pixels) for pixels in batch["pixel_values"]]
        return batch

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> EpochSampler:
        return self.sampler

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Matrices and kernels decay; biases and norms do not."""
        return [name for name, p in model.named_parameters() if p.ndim > 1 and "bias" not in name]

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Task loss plus balance loss.

        Raises:
            NonFiniteLossError: One of them is not finite; no weight has been changed by this batch.
        """
        self.recent_names.append(inputs.pop("names"))
        if self.prefix_cache is not None:
            encoder = self.accelerator.unwrap_model(model).get_base_model().sam.vision_encoder
            with self.accelerator.autocast():
                states = self.prefix_cache.states(encoder, inputs.pop("pixel_values"), inputs.pop("digests"))
            inputs = {**inputs, "prefix_states": states, "prefix_blocks": self.prefix_cache.blocks}
        task = model(**inputs).loss
        balance = balance_loss(model)
        self.parts.append(torch.stack([task.detach(), balance.detach()]))
        loss = task + balance
        if not loss.isfinite():
            raise self.not_finite(f"loss {task.item()} + balance loss {balance.item()}")
        return loss

    def not_finite(self, what: str) -> NonFiniteLossError:
        """The error for a non-finite value in the current step."""
        names = ", ".join(name for batch in self.recent_names for name in batch)
        return NonFiniteLossError(
            f"training stopped at step {self.state.global_step + 1}: {what} is not finite. The weights were left as "
            f"they were; the batch was {names}. Look at these images, lower --learning_rate, or use --precision fp32."
        )

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Fetch the batches of a step, and measure how long the step waits for them."""
        start = time.perf_counter()
        batches: tuple[list[Any], Any] = super().get_batch_samples(*args, **kwargs)
        self.data_wait += time.perf_counter() - start
        return batches

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the parts of the loss beside it."""
        if "loss" in logs and self.parts:
            task, balance = torch.stack(self.parts).mean(0).tolist()
            logs = {**logs, "task_loss": task, "balance_loss": balance, "data_wait_seconds": self.data_wait}
            self.parts.clear()
            self.data_wait = 0.0
        super().log(logs, start_time)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        # a score that the validation images leave undefined is absent, and then no checkpoint is the best
        known = f"eval_{self.args.metric_for_best_model}" in metrics
        return bool(super()._determine_best_metric(metrics, trial)) if known else False

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validate at the images' own sizes."""
        model = self.accelerator.unwrap_model(self.model)
        was_training = model.training
        metrics = {f"eval_{name}": value for name, value in self.validate(model.eval()).items()}
        model.train(was_training)
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        folder = Path(self.args.output_dir)
        random_states = gather_object([checkpoints.random_state()])
        if self.args.should_save:
            with checkpoints.sealed_folder(folder / f"checkpoint-{self.state.global_step}") as hidden:
                (hidden / checkpoints.ADAPTER).mkdir()
                save_segmenter(
                    self.accelerator.unwrap_model(self.model), self.image_processor, hidden / checkpoints.ADAPTER
                )
                checkpoints.save_training_state(
                    hidden,
                    optimizer=self.optimizer,
                    scheduler=self.lr_scheduler,
                    scaler=self.accelerator.scaler,
                    random_states=random_states,
                )
                for callback in self.callback_handler.callbacks:
                    if isinstance(callback, ExportableState):
                        self.state.stateful_callbacks[type(callback).__name__] = callback.state()
                self.state.save_to_json(str(hidden / TRAINER_STATE))
            checkpoints.remove_old(
                folder,
                keep=self.keep_checkpoints,
                best_step=self.state.best_global_step,
                step=self.state.global_step,
            )
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        weights = Path(resume_from_checkpoint) / checkpoints.ADAPTER / WEIGHTS_FILE
        restore_adapter(self.model, load_tensors(weights), source=weights)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_training_state(
                Path(checkpoint), optimizer=self.optimizer, scheduler=self.lr_scheduler, scaler=self.accelerator.scaler
            )

    def _load_scaler(self, checkpoint: str | None) -> None:
        return  # restored with the optimiser

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.restore_random_state(Path(checkpoint), self.args.process_index)


_SKIPPED_STEPS = 20  # fp16 scaling halves its factor at each: after 20 of them the gradient itself is not finite


class FiniteGradients(TrainerCallback):
    """Stop before the optimiser would spread a non-finite gradient into the weights."""

    def __init__(self, trainer: SegmentationTrainer) -> None:
        self.trainer = trainer
        self.skipped = 0

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raise if fp16 scaling had to skip many steps in a row."""
        self.skipped = self.skipped + 1 if self.trainer.accelerator.optimizer_step_was_skipped else 0
        if self.skipped >= _SKIPPED_STEPS:
            raise self.trainer.not_finite(f"the gradient of {self.skipped} steps in a row")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raise if any gradient is not finite."""
        if self.trainer.accelerator.scaler is not None:
            return  # fp16 scaling meets infinities on purpose, and skips those steps itself
        gradients = [p.grad for p in self.trainer.model.parameters() if p.grad is not None]
        if gradients and not torch.stack([gradient.isfinite().all() for gradient in gradients]).all():
            raise self.trainer.not_finite("a gradient")
