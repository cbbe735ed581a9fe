"""Everything that can be set about a training run: one tree for Python, YAML and the command line."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from convlora.data.augmentation.settings import AugmentationSettings
from convlora.data.settings import DataSettings, tile_problems
from convlora.errors import SettingsError
from convlora.settings import from_values

METHODS = (
    "conv-lora",
    "lora",
    "dora",
    "adapter",
    "sam-adapter",
    "ssf",
    "bitfit",
    "norm",
    "vpt",
    "lst",
    "decoder",
    "full",
    "scratch",
)
WITHOUT_ADAPTER = ("decoder", "full", "scratch")
ADAPT_DECODER = ("lora", "dora", "adapter", "ssf", "bitfit", "norm")  # methods that can sit in the mask decoder too
DECODERS = ("tuned", "adapted", "frozen")
ROUTINGS = ("balanced", "learned", "random", "soft", "soft-token", "sum")  # as in the adapter, which imports torch
VARIANTS = {"activation": ("gelu", "none"), "kernel_size": (3, 1), "context": ("window", "image")}
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
BINARY_METRICS = ("s_measure", "ber", "ber_per_image")
METRICS = ("iou", "dice", "pixel_accuracy", "iou_per_image", *BINARY_METRICS)
RESIZES = ("longest", "square")
TILE_SAMPLINGS = ("random", "foreground")
BINARY_LOSSES = ("structure", "structure-weighted", "balanced-bce")  # named here too: the losses import torch
LOSSES = (*BINARY_LOSSES, "dice-ce", "focal", "tversky", "focal-tversky")
WEIGHTED_LOSSES = ("dice-ce", "focal")  # that take class_weights
MULTILABEL_LOSSES = ("dice-bce", "focal", "tversky", "focal-tversky")
MULTILABEL_METRICS = ("iou", "dice", "iou_per_image")
BALANCED = "balanced"
OVERSAMPLING = ("none", "class")
SET_LOSS = "set"  # of head queries
HEADS = ("classes", "queries")


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """The adapter in the image encoder, for the methods that have one."""

    r: int = 3
    """Rank of the bottleneck (conv-lora, lora, dora), or its width (adapter)."""
    lora_alpha: int = 32
    """The adapter's output is multiplied by lora_alpha / r."""
    num_experts: int = 8
    """Conv-LoRA: experts; expert i works at i times the token grid."""
    routing: int | str = "balanced"
    """Conv-LoRA: balanced (as published), learned, soft, soft-token, random, sum, or one fixed scale."""
    balance_weight: float = 0.01
    """Conv-LoRA: multiplier of the load-balancing loss; 0 turns it off."""
    residual: bool = True
    """Conv-LoRA: false leaves only what the experts answer, without the low-rank map beside it."""
    activation: str = "gelu"
    """Conv-LoRA: gelu after the convolution, or none."""
    kernel_size: int = 3
    """Conv-LoRA: 3, or 1 for experts that mix channels only."""
    context: str = "window"
    """Conv-LoRA: window routes and convolves inside each attention window; image over the whole image."""
    num_prompts: int = 12
    """VPT: prompts of each block; 12 train as many parameters in ViT-H as LoRA of rank 3."""
    lora_dropout: float = 0.0
    """Probability of dropping an input of the bottleneck."""
    target_modules: list[str] = field(default_factory=lambda: ["qkv"])
    """Names of the linear layers of the encoder that conv-lora, lora and dora adapt."""
    blocks: int | list[int] | None = None
    """Encoder blocks that are adapted: the last N, or a list of numbers from 0; default all."""
    decoder: str = "tuned"
    """Mask decoder: tuned whole (as published), adapted by the method too, or frozen; its heads are always tuned."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(DataSettings):
    """A training run."""

    output: str
    """Run folder to create; it must not hold files."""
    model: str = "sam-tiny"
    """SAM to start from: sam-tiny (embedded), mobile-sam (after convlora convert), a folder, or a name on the model
    hub. Or unet: MONAI's U-Net, which needs method scratch."""
    method: str = "conv-lora"
    """What is trained beside the mask decoder: conv-lora, lora, dora, adapter, sam-adapter, ssf, bitfit, norm, vpt or
    lst in the image encoder; decoder: nothing; full: all of the encoder; scratch: all of it, from random weights."""
    head: str = "classes"
    """classes: one mask per class; queries: masks of any class and a classifier, as the paper for several classes."""
    num_queries: int | None = None
    """Masks of head queries; default 10 for up to 20 classes, else 100, but never less than one per class,
    nor more than the width of a token (SAM 256)."""
    loss: str | None = None
    """structure, structure-weighted or balanced-bce for 2 classes; dice-ce, focal, tversky or focal-tversky for any
    number; default structure for 2 classes, else dice-ce. Task multilabel takes dice-bce, its default, and the last
    three; head queries takes set, its default."""
    class_weights: list[float] | str | None = None
    """Of the classes in the loss, background first; or balanced: by inverse frequency in the training masks. For losses
    dice-ce and focal, and all of task multilabel."""
    oversample: str = "none"
    """class: show training images of rare classes more often, √(oversample_below / the fraction that holds the class)
    times; an epoch is that much longer."""
    oversample_below: float = 0.5
    """Fraction of the training images; a class that fewer of them hold is rare."""
    image_size: int | None = None
    """Side of SAM's input in pixels, a multiple of its patch; default the checkpoint's own (SAM 1024, sam-tiny 512)."""
    resize: str = "longest"
    """longest keeps the aspect ratio and pads; square squeezes, as the paper."""
    tile: int | None = None
    """Side in pixels of square crops of the images, which are seen instead of whole images, also in prediction; each is
    resized to image_size, and images that are smaller are padded. Default: whole images."""
    overlap: float = 0.25
    """Fraction of a tile that it shares with the next one in validation and prediction, 0 to 0.9."""
    tile_sampling: str = "random"
    """random: crops from anywhere; foreground: half of them around a random pixel of a random class that is there."""
    tiles_per_image: int | None = None
    """Crops of each image in an epoch; default so many that each pixel is seen about once."""
    epochs: int = 20
    """Passes over the training images."""
    max_steps: int | None = None
    """Optimiser steps; overrides epochs."""
    batch_size: int = 4
    """Images per step and process."""
    accumulation: int = 1
    """Batches that are added up before each optimiser step."""
    learning_rate: float = 3e-4
    """Peak learning rate of AdamW."""
    weight_decay: float = 1e-4
    """Weight decay; never applied to biases and norms."""
    warmup: float = 0.0
    """Fraction of the steps over which the learning rate rises; then it falls linearly to 0."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 turns clipping off."""
    precision: str = "auto"
    """auto: bf16 where the hardware has it, fp16 on older GPUs, else fp32; or one of these. What trains stays fp32."""
    gradient_checkpointing: bool = False
    """Recompute each encoder block in the backward pass: less memory, more time."""
    evaluate_every: int | None = None
    """Steps between validations and checkpoints; default one epoch."""
    metric: str = "iou"
    """Validation score that picks the best checkpoint: iou, dice, pixel_accuracy or iou_per_image; for two classes also
    s_measure, ber or ber_per_image."""
    early_stopping: int | None = None
    """Stop after so many validations without a better score."""
    keep_checkpoints: int = 2
    """Newest checkpoints that are kept, besides the best one."""
    workers: int | None = None
    """Processes that read and augment images; default 4 beside a GPU, else 0."""
    image_cache_gb: float = 2.0
    """Memory of each process for decoded images, in gigabytes, shared by its workers; 0 decodes them each epoch."""
    prefix_cache_gb: float = 20.0
    """Disk for answers of the frozen encoder blocks, where augmentation is off or has fixed views; 0 turns it off."""
    prefix_cache: str | None = None
    """Folder for these answers, which runs may share; default one in the run folder, removed when the run is done."""
    seed: int = 0
    """Seed of weights, order, augmentation and gate noise."""
    device: str = "auto"
    """auto takes a GPU if there is one; cpu."""
    report_to: list[str] = field(default_factory=list)
    """Trackers beside log.jsonl: tensorboard, trackio."""
    adapter: AdapterSettings = AdapterSettings()
    """The adapter."""
    augmentation: AugmentationSettings = AugmentationSettings()
    """Random changes of the training images."""

    @property
    def pixels_repeat(self) -> bool:
        """Whether the same pixels come again in later epochs; crops are other ones each time, unless views are few."""
        return self.augmentation.repeats if self.tile is None else self.augmentation.views is not None

    def anchored(self) -> TrainSettings:
        """The same, with the place of a model folder given absolutely: a run is continued from any folder."""
        return dataclasses.replace(self, model=str(Path(self.model).absolute())) if Path(self.model).is_dir() else self


def validate(settings: TrainSettings) -> None:
    """Raise one `SettingsError` that lists everything wrong with the values of a run's settings."""
    problems = [*_choice_problems(settings), *_range_problems(settings), *_tile_problems(settings)]
    problems += [*settings.problems(), *settings.augmentation.problems()]
    if problems:
        raise SettingsError("; ".join(problems) + ".")


def _choice_problems(settings: TrainSettings) -> list[str]:
    choices = {
        "method": METHODS,
        "head": HEADS,
        "precision": PRECISIONS,
        "metric": METRICS,
        "resize": RESIZES,
        "tile_sampling": TILE_SAMPLINGS,
        "oversample": OVERSAMPLING,
        "device": ("auto", "cpu"),
    }
    problems = [
        f"{name}={getattr(settings, name)!r} must be one of {', '.join(allowed)}"
        for name, allowed in choices.items()
        if getattr(settings, name) not in allowed
    ]
    trackers = ("tensorboard", "trackio")
    problems += [
        f"report_to: {name!r} must be one of {', '.join(trackers)}"
        for name in settings.report_to
        if name not in trackers
    ]
    problems += [
        f"report_to: {name} is not installed; install convlora[{name}]"
        for name in settings.report_to
        if name in trackers and find_spec(name) is None
    ]
    problems += [*_head_problems(settings), *_loss_problems(settings)]
    known = settings.classes is not None and settings.class_map is None
    classes = len(settings.classes or ()) if known else 3 if settings.task == "multilabel" else None
    if classes and (problem := metric_problem(settings.metric, classes, multilabel=settings.task == "multilabel")):
        problems.append(problem)
    return [*problems, *adapter_problems(settings.method, settings.adapter), *_unet_problems(settings)]


def adapter_problems(method: str, adapter: AdapterSettings) -> list[str]:
    """Everything wrong with the adapter's settings for a method."""
    problems = [
        f"adapter.{name}={value} must be at least 1"
        for name in ("r", "lora_alpha", "num_experts", "num_prompts")
        if (value := getattr(adapter, name)) < 1
    ]
    routing, weight, dropout = adapter.routing, adapter.balance_weight, adapter.lora_dropout
    if routing not in ROUTINGS and not (isinstance(routing, int) and routing >= 1):
        problems.append(f"adapter.routing={routing!r} must be {', '.join(ROUTINGS)} or a scale of at least 1")
    problems += [
        f"adapter.{name}={getattr(adapter, name)!r} must be one of {', '.join(map(str, allowed))}"
        for name, allowed in VARIANTS.items()
        if getattr(adapter, name) not in allowed
    ]
    if not 0 <= dropout < 1:
        problems.append(f"adapter.lora_dropout={dropout} must be at least 0 and less than 1")
    if not (weight >= 0 and math.isfinite(weight)):
        problems.append(f"adapter.balance_weight={weight} must be finite and at least 0")
    if adapter.blocks is not None and method in WITHOUT_ADAPTER:
        problems.append(f"adapter.blocks={adapter.blocks} chooses blocks to adapt, and method={method!r} adapts none")
    decoder = decoder_problem(method, adapter.decoder)
    return [*problems, *([decoder] if decoder else [])]


def metric_problem(metric: str, num_classes: int, *, multilabel: bool = False) -> str | None:
    """What is wrong with the metric for so many classes, which may overlap; None if it can be used."""
    if multilabel:
        good = metric in MULTILABEL_METRICS
        return None if good else f"metric={metric!r} is for task=exclusive; use {', '.join(MULTILABEL_METRICS)}"
    if metric not in BINARY_METRICS or num_classes == 2:
        return None
    others = ", ".join(name for name in METRICS if name not in BINARY_METRICS)
    return f"metric={metric!r} is defined for two classes, and there are {num_classes}; use {others}"


def decoder_problem(method: str, decoder: str) -> str | None:
    """What is wrong with the decoder's setting for a method; None if it can be used."""
    if decoder not in DECODERS:
        return f"adapter.decoder={decoder!r} must be one of {', '.join(DECODERS)}"
    if decoder == "adapted" and method not in ADAPT_DECODER:
        return f"adapter.decoder='adapted' goes with {', '.join(ADAPT_DECODER)}, not with method={method!r}"
    if decoder == "frozen" and method in ("decoder", "scratch"):
        return f"adapter.decoder='frozen' leaves method={method!r} nothing to start from; use tuned"
    return None


def _unet_problems(settings: TrainSettings) -> list[str]:
    if settings.model != "unet":
        return []
    problems = []
    if settings.method != "scratch":
        problems.append(f"model='unet' has no trained weights to tune with method={settings.method!r}; use scratch")
    if settings.head != "classes":
        problems.append(f"head={settings.head!r} is one of SAM's mask decoder, which model='unet' has not")
    if settings.gradient_checkpointing:
        problems.append("gradient_checkpointing is not available for model='unet'")
    if find_spec("monai") is None:
        problems.append("model='unet' needs MONAI, which is not installed; install convlora[unet]")
    return problems


def _head_problems(settings: TrainSettings) -> list[str]:
    head, loss = settings.head, settings.loss
    problems = []
    every = tuple(dict.fromkeys((*LOSSES, *MULTILABEL_LOSSES, SET_LOSS)))
    if loss is not None and loss not in every:
        problems.append(f"loss={loss!r} must be one of {', '.join(every)}")
    elif head == "queries" and loss is not None and loss != SET_LOSS:
        problems.append(f"loss={loss!r} takes one mask per class, and those of head='queries' may be of any: use set")
    elif head == "classes" and loss == SET_LOSS:
        problems.append("loss='set' matches masks that may be of any class: use it with head='queries'")
    if head == "classes" and settings.num_queries is not None:
        problems.append(f"num_queries={settings.num_queries} is for head='queries'")
    return problems


def _loss_problems(settings: TrainSettings) -> list[str]:
    multilabel, loss, weights = settings.task == "multilabel", settings.loss, settings.class_weights
    problems = []
    if multilabel and settings.head == "queries":
        problems.append("head='queries' makes classes that exclude each other; task='multilabel' takes head='classes'")
    elif multilabel and loss in (*LOSSES, SET_LOSS) and loss not in MULTILABEL_LOSSES:
        problems.append(f"loss={loss!r} is for task='exclusive'; multilabel takes {', '.join(MULTILABEL_LOSSES)}")
    elif not multilabel and loss in MULTILABEL_LOSSES and loss not in LOSSES:
        problems.append(f"loss={loss!r} is for task='multilabel'; exclusive takes {', '.join(LOSSES)}")
    if isinstance(weights, str) and weights != BALANCED:
        problems.append(f"class_weights={weights!r} must be {BALANCED}, or one number a class, as in 1,2,5")
    if isinstance(weights, list) and not (all(0 <= w < math.inf for w in weights) and sum(weights) > 0):
        problems.append(f"class_weights={weights} must be finite, none below 0 and not all of them 0")
    if weights is not None and not multilabel and loss is not None and loss not in WEIGHTED_LOSSES:
        problems.append(f"class_weights have no place in loss={loss!r}; use {' or '.join(WEIGHTED_LOSSES)}")
    if not 0 < settings.oversample_below <= 1:
        problems.append(f"oversample_below={settings.oversample_below} must be more than 0 and at most 1")
    return problems


def _tile_problems(settings: TrainSettings) -> list[str]:
    problems = tile_problems(settings.tile, settings.overlap)
    if settings.tile is None:
        given = {
            "tile_sampling": settings.tile_sampling != "random",
            "tiles_per_image": settings.tiles_per_image is not None,
        }
        problems += [f"{name} is for crops of the images; give tile, too" for name, set_ in given.items() if set_]
    return problems


def _range_problems(settings: TrainSettings) -> list[str]:
    at_least_one = (
        "epochs",
        "batch_size",
        "accumulation",
        "keep_checkpoints",
        "max_steps",
        "evaluate_every",
        "early_stopping",
        "image_size",
        "num_queries",
        "tiles_per_image",
    )
    problems = [
        f"{name}={value} must be at least 1"
        for name in at_least_one
        if (value := getattr(settings, name)) is not None and value < 1
    ]
    bounds = {
        "learning_rate": (0.0, math.inf),
        "weight_decay": (0.0, math.inf),
        "max_grad_norm": (0.0, math.inf),
        "warmup": (0.0, 1.0),
        "image_cache_gb": (0.0, math.inf),
        "prefix_cache_gb": (0.0, math.inf),
        "seed": (0, 2**32 - 1),
    }
    problems += [
        f"{name}={value} must be finite and between {low} and {high}"
        for name, (low, high) in bounds.items()
        if not (low <= (value := getattr(settings, name)) <= high and math.isfinite(value))
    ]
    if settings.workers is not None and settings.workers < 0:
        problems.append(f"workers={settings.workers} must be at least 0")
    return problems


def as_dict(settings: TrainSettings) -> dict[str, Any]:
    """The settings tree as plain values, ready for YAML; what an augmentation preset stands for is written out."""
    return dataclasses.asdict(dataclasses.replace(settings, augmentation=settings.augmentation.written_out()))


def from_dict(values: dict[str, Any], *, source: object) -> TrainSettings:
    """The settings that `as_dict` made plain.

    Raises:
        SettingsError: An unknown setting, a wrong type or value; `source` is named.
    """
    settings = from_values(TrainSettings, values, source=source)
    validate(settings)
    return settings
