"""Train a segmenter into a run folder, and continue a run that was interrupted."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from peft import PeftModel
from torch import distributed, nn
from transformers import TrainerState, TrainingArguments, set_seed

from convlora.data.checking import CheckedData, check_data
from convlora.data.dataset import EpochSampler, SegmentationDataset
from convlora.errors import NonFiniteLossError, WeightsError
from convlora.files import whole_folder
from convlora.sam import SamForSemanticSegmentation, SamSegmentationImageProcessor
from convlora.sam.precision import pick_device, resolve_precision, store_frozen
from convlora.sam.prefix import frozen_blocks
from convlora.training import checkpoints
from convlora.training.callbacks import (
    EarlyStopping,
    FinalEvaluation,
    Interrupted,
    JsonLinesLog,
    ReportProgress,
    StopOnSignal,
)
from convlora.training.events import Checking, Report, Started, silent
from convlora.training.folder import RunFolder, Split
from convlora.training.methods import apply_method, count_parameters
from convlora.training.prefix_cache import PrefixCache
from convlora.training.settings import TrainSettings, as_dict, from_dict, validate
from convlora.training.trainer import TRAINER_STATE, SegmentationTrainer
from convlora.training.validation import validation_scores


def train(settings: TrainSettings, report: Report = silent) -> RunFolder:
    """Check the data, train, and leave the best adapter in a new run folder.

    Args:
        settings: Everything about the run.
        report: Called with the events of `convlora.training.events`.

    Returns:
        The folder; `adapter` in it holds the weights of the best validation.

    Raises:
        ConvloraError: Of the kind that says what is wrong; see `convlora.errors`.
        Interrupted: On Ctrl-C or SIGTERM, after a checkpoint was saved. `resume` continues.
    """
    validate(settings)
    if Path(settings.model).is_dir():  # a run is continued from any folder
        settings = dataclasses.replace(settings, model=str(Path(settings.model).absolute()))
    folder = RunFolder(settings.output)
    if is_main_process():
        folder.refuse_if_used()
    checked = _check(settings, report)
    split = Split(checked.splits, checked.labels)
    tuned = build_model(settings, split)  # before anything is written: the model's name may be wrong
    if is_main_process():
        folder.create(as_dict(settings), split)
    return _run(folder, settings, split, tuned, checked, report)


def resume(path: str | os.PathLike[str], report: Report = silent) -> RunFolder:
    """Continue a run where its last complete checkpoint left it; a finished run is returned as it is.

    On the same machine, with the same number of threads, the result is that of a run without interruption.

    Raises:
        WeightsError: This is not a run folder, or its files were changed.
    """
    folder = RunFolder.open(path)
    settings = dataclasses.replace(from_dict(folder.settings(), source=folder.config), output=str(path))
    if folder.adapter.is_dir():  # it appears whole, as the last thing of a run
        return folder
    split = folder.read_split()
    return _run(folder, settings, split, build_model(settings, split), None, report)


def is_main_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def leave_process_group() -> None:
    """Leave torchrun's group in order, when all processes are done."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def _check(settings: TrainSettings, report: Report) -> CheckedData:
    return check_data(settings, progress=lambda done, total: report(Checking(done, total)))


def _run(
    folder: RunFolder,
    settings: TrainSettings,
    split: Split,
    tuned: tuple[PeftModel, SamSegmentationImageProcessor],
    checked: CheckedData | None,
    report: Report,
) -> RunFolder:
    with folder.locked(shared=not is_main_process()):
        trainer = build_trainer(folder, settings, split, tuned, report)
        _fit(folder, settings, trainer, checked, report)
        if is_main_process():
            _export_best(folder, trainer.state)
            shutil.rmtree(folder.prefix_cache, ignore_errors=True)
    return folder


def build_model(settings: TrainSettings, split: Split) -> tuple[PeftModel, SamSegmentationImageProcessor]:
    """The segmenter with the method applied, initialised from the run's seed, and its processor."""
    set_seed(settings.seed)
    base = SamForSemanticSegmentation.from_pretrained(
        settings.model, id2label=split.labels.id2label, loss=settings.loss, image_size=settings.image_size
    )
    base.config.semantic_loss_ignore_index = split.labels.ignore_index
    processor = SamSegmentationImageProcessor.from_sam(
        settings.model,
        size=base.config.vision_config.image_size,
        resize=settings.resize,
        ignore_index=split.labels.ignore_index,
    )
    model = apply_method(base, settings.method, settings.adapter)
    store_frozen(base.sam.vision_encoder, resolve_precision(settings.precision, pick_device(settings.device)))
    return model, processor


def build_trainer(
    folder: RunFolder,
    settings: TrainSettings,
    split: Split,
    tuned: tuple[PeftModel, SamSegmentationImageProcessor],
    report: Report,
) -> SegmentationTrainer:
    """A trainer that is ready to start, with all callbacks."""
    model, processor = tuned
    limits = settings.limits
    sampler = EpochSampler(len(split.samples["train"]), settings.seed)
    cache_bytes = int(settings.image_cache_gb * 1e9)
    validation = SegmentationDataset(split.samples["val"], split.labels, limits=limits, cache_bytes=cache_bytes // 4)

    def scores_of(segmenter: nn.Module) -> dict[str, float]:
        scores = validation_scores(segmenter, processor, validation, split.labels, batch_size=settings.batch_size)
        return {name: value for name, value in scores.items() if value == value}  # JSON knows no NaN

    trainer = SegmentationTrainer(
        model,
        training_arguments(folder, settings, len(sampler), validated=bool(len(validation))),
        processor=processor,
        train_dataset=SegmentationDataset(
            split.samples["train"],
            split.labels,
            limits=limits,
            augmentation=settings.augmentation,
            seed=settings.seed,
            cache_bytes=cache_bytes // max(1, worker_count(settings)),
        ),
        eval_dataset=validation,
        validate=scores_of,
        sampler=sampler,
        keep_checkpoints=settings.keep_checkpoints,
        prefix_cache=_prefix_cache(folder, settings, model),
    )
    trainer.add_callback(JsonLinesLog(folder))
    trainer.add_callback(FinalEvaluation())
    trainer.add_callback(ReportProgress(report))
    return trainer


def worker_count(settings: TrainSettings) -> int:
    """Processes that read images: as set, or 4 beside a GPU and none without."""
    if settings.workers is not None:
        return settings.workers
    return 4 if pick_device(settings.device).type == "cuda" else 0


def _prefix_cache(folder: RunFolder, settings: TrainSettings, model: PeftModel) -> PrefixCache | None:
    encoder = model.get_base_model().sam.vision_encoder
    blocks = frozen_blocks(encoder)
    if not blocks or not settings.prefix_cache_gb or not settings.augmentation.repeats:
        return None
    where = Path(settings.prefix_cache) if settings.prefix_cache else folder.prefix_cache
    precision = resolve_precision(settings.precision, pick_device(settings.device))
    return PrefixCache(where, encoder, blocks, precision, int(settings.prefix_cache_gb * 1e9))


def training_arguments(
    folder: RunFolder, settings: TrainSettings, images: int, *, validated: bool
) -> TrainingArguments:
    """The settings in transformers' words."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    batches = -(-images // (settings.batch_size * processes))
    steps_per_epoch = -(-batches // settings.accumulation)
    total = settings.max_steps or settings.epochs * steps_per_epoch
    every = min(settings.evaluate_every or steps_per_epoch, total)
    device, workers = pick_device(settings.device), worker_count(settings)
    precision = resolve_precision(settings.precision, device)
    if "tensorboard" in settings.report_to:
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder.path / "tensorboard"))
    return TrainingArguments(
        output_dir=str(folder.checkpoints),
        max_steps=total,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=round(settings.warmup * total),
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type="linear",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        gradient_checkpointing=settings.gradient_checkpointing or None,
        gradient_checkpointing_kwargs={"use_reentrant": False} if settings.gradient_checkpointing else None,
        eval_strategy="steps" if validated else "no",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        metric_for_best_model=settings.metric if validated else None,
        greater_is_better=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0,
        dataloader_pin_memory=device.type == "cuda",
        use_cpu=device.type == "cpu",
        seed=settings.seed,
        report_to=settings.report_to or "none",
        project=folder.path.name,
        remove_unused_columns=False,
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
    )


def _fit(
    folder: RunFolder,
    settings: TrainSettings,
    trainer: SegmentationTrainer,
    checked: CheckedData | None,
    report: Report,
) -> None:
    checkpoint = checkpoints.newest_complete(folder.checkpoints)
    done = 0 if checkpoint is None else checkpoints.step_of(checkpoint)
    if is_main_process():
        folder.rewind_log(done)
    precision = resolve_precision(settings.precision, pick_device(settings.device))
    blocks = trainer.prefix_cache.blocks if trainer.prefix_cache else None
    report(Started(checked, *count_parameters(trainer.model), precision, blocks, done, trainer.args.max_steps))
    early = EarlyStopping(settings.metric, settings.early_stopping) if settings.early_stopping else None
    if checkpoint is not None:
        state = read_state(checkpoint)
        if done >= trainer.args.max_steps or (early and early.exhausted(state.log_history)):
            trainer.state = state
            return
    if early:
        trainer.add_callback(early)
    stop = StopOnSignal()
    trainer.add_callback(stop)
    try:
        with stop.listening():
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except NonFiniteLossError as error:
        folder.append_log({"step": trainer.state.global_step, "error": str(error)})
        raise
    except Interrupted as error:
        raise Interrupted(f"{error}. Continue with: convlora resume {quote(str(folder.path))}") from None


def read_state(checkpoint: Path) -> TrainerState:
    """transformers' own state in a complete checkpoint."""
    try:
        return TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{checkpoint / TRAINER_STATE} is not readable: {error}") from error


def _export_best(folder: RunFolder, state: TrainerState) -> None:
    """Copy the adapter of the best validation to where it is looked for; the last one if no score could be computed."""
    steps: Sequence[int | None] = (state.best_global_step, state.global_step)
    for step in steps:
        source = folder.checkpoints / f"checkpoint-{step}"
        if step is not None and checkpoints.is_complete(source):
            with whole_folder(folder.adapter) as hidden:
                shutil.copytree(source / checkpoints.ADAPTER, hidden, dirs_exist_ok=True)
            return
    raise WeightsError(f"{folder.checkpoints} holds no complete checkpoint any more. Train again into a new folder.")
