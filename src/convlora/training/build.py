"""From settings to a trainer that is ready to start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import TrainingArguments, set_seed

from convlora.data.dataset import EpochSampler, SegmentationDataset
from convlora.data.tiles import TileDataset
from convlora.errors import DataError, SettingsError
from convlora.objectives.metrics import LOWER_IS_BETTER
from convlora.sam import SamSegmentationImageProcessor
from convlora.sam.precision import pick_device, resolve_precision, store_frozen
from convlora.sam.prefix import frozen_blocks
from convlora.sam.segmenters import image_encoder, load_base, make_processor
from convlora.training.callbacks import FinalEvaluation, JsonLinesLog, ReportProgress, RoutingUsage
from convlora.training.events import Report
from convlora.training.folder import RunFolder
from convlora.training.methods import apply_method
from convlora.training.prefix_cache import PrefixCache
from convlora.training.settings import TrainSettings
from convlora.training.split import Split
from convlora.training.trainer import SegmentationTrainer
from convlora.training.validation import validation_scores


def build_model(settings: TrainSettings, split: Split) -> tuple[PeftModel, SamSegmentationImageProcessor]:
    """The segmenter with the method applied, initialised from the run's seed, and its processor."""
    device = pick_device(settings.device)
    precision = resolve_precision(settings.precision, device)
    if precision == "fp16" and device.type == "cpu":
        raise SettingsError("precision='fp16' trains on a GPU only: on a CPU choose fp32, bf16, or auto.")
    set_seed(settings.seed)
    base = load_base(
        settings.model,
        id2label=split.labels.id2label,
        loss=settings.loss,
        head=settings.head,
        num_queries=settings.num_queries,
        image_size=settings.image_size,
        channels=settings.channels,
        multilabel=split.labels.multilabel,
        class_weights=split.class_weights,
        colours=split.labels.colours,
        ignore_index=split.labels.ignore_index,
    )
    processor = make_processor(
        settings.model, base, resize=settings.resize, tile=settings.tile, overlap=settings.overlap
    )
    processor.intensity = split.source.intensity if split.source is not None else settings.intensity
    if settings.channels is not None:
        _take_channels(processor, settings, split)
    model = apply_method(base, settings.method, settings.adapter)
    if (encoder := image_encoder(base)) is not None:
        store_frozen(encoder, precision)
    return model, processor


def _take_channels(processor: SamSegmentationImageProcessor, settings: TrainSettings, split: Split) -> None:
    """Let a processor made for RGB take raw channels."""
    if split.statistics is None:
        raise DataError("the run's split.json holds no statistics of the channels. Train into a new folder.")
    rgb = (processor.image_mean, processor.image_std) if settings.channel_statistics == "sam" else None
    processor.image_mean, processor.image_std = split.statistics.normalisation(rgb)
    processor.channels, processor.display_channels = settings.channels, settings.display_channels


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
    cache_bytes = int(settings.image_cache_gb * 1e9)
    validation = SegmentationDataset(
        split.samples["val"],
        split.labels,
        limits=limits,
        cache_bytes=cache_bytes // 5,
        channels=settings.channels,
    )

    def scores_of(segmenter: nn.Module) -> dict[str, float]:
        scores = validation_scores(
            segmenter,
            processor,
            validation,
            split.labels,
            batch_size=settings.batch_size,
            with_s_measure=settings.metric == "s_measure",
        )
        return {name: value for name, value in scores.items() if value == value}  # JSON knows no NaN

    training = _training_data(settings, split)
    repeats = split.repeats and [split.repeats[training.sample_index(index)] for index in range(len(training))]
    sampler = EpochSampler(len(training), settings.seed, repeats)
    trainer = SegmentationTrainer(
        model,
        training_arguments(folder, settings, len(sampler), validated=bool(len(validation))),
        processor=processor,
        train_dataset=training,
        eval_dataset=validation,
        validate=scores_of,
        sampler=sampler,
        keep_checkpoints=settings.keep_checkpoints,
        prefix_cache=_prefix_cache(folder, settings, model),
    )
    trainer.add_callback(JsonLinesLog(folder))
    trainer.add_callback(RoutingUsage(folder))
    trainer.add_callback(FinalEvaluation())
    trainer.add_callback(ReportProgress(report))
    return trainer


def _training_data(settings: TrainSettings, split: Split) -> SegmentationDataset:
    """The training images, or crops of them."""
    options: dict[str, Any] = {
        "limits": settings.limits,
        "channels": settings.channels,
        "augmentation": settings.augmentation,
        "seed": settings.seed,
        "cache_bytes": int(settings.image_cache_gb * 1e9) * 4 // 5 // max(1, worker_count(settings)),
    }
    samples, labels = split.samples["train"], split.labels
    if settings.tile is None:
        return SegmentationDataset(samples, labels, **options)
    return TileDataset(
        samples,
        labels,
        tile=settings.tile,
        sampling=settings.tile_sampling,
        per_image=settings.tiles_per_image,
        **options,
    )


def worker_count(settings: TrainSettings) -> int:
    """Processes that read images: as set, or 4 beside a GPU and none without."""
    if settings.workers is not None:
        return settings.workers
    return 4 if pick_device(settings.device).type == "cuda" else 0


def _prefix_cache(folder: RunFolder, settings: TrainSettings, model: PeftModel) -> PrefixCache | None:
    encoder = image_encoder(model.get_base_model())
    blocks = frozen_blocks(encoder) if encoder is not None else 0
    if encoder is None or not blocks or not settings.prefix_cache_gb or not settings.pixels_repeat:
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
    arguments = TrainingArguments(
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
        greater_is_better=settings.metric not in LOWER_IS_BETTER,
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
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # several GPUs in one process would be DataParallel; use torchrun for DDP
    return arguments
