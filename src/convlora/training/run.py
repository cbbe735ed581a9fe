"""Train a segmenter into a run folder, and continue a run that was interrupted."""

from __future__ import annotations

import dataclasses
import gc
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from peft import PeftModel
from torch import distributed
from transformers import TrainerState

from convlora.data.findings.checking import CheckedData, check_data
from convlora.data.sampling.balancing import balanced_weights, repeat_factors
from convlora.data.settings import DataSettings
from convlora.errors import NonFiniteLossError, OutputError, SettingsError, WeightsError
from convlora.files import whole_folder
from convlora.sam import SamSegmentationImageProcessor
from convlora.sam.precision import pick_device, resolve_precision
from convlora.training import checkpoints
from convlora.training.build import build_model, build_trainer
from convlora.training.callbacks import EarlyStopping, Interrupted, StopOnSignal
from convlora.training.events import Checking, Report, Started, silent
from convlora.training.folder import RunFolder
from convlora.training.methods import count_parameters
from convlora.training.settings import BALANCED, TrainSettings, as_dict, from_dict, metric_problem, validate
from convlora.training.split import Split
from convlora.training.trainer import TRAINER_STATE, SegmentationTrainer


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
    settings = settings.anchored()
    folder = RunFolder(settings.output)
    if is_main_process():
        folder.refuse_if_used()
    checked = _check(settings, report)
    split = _split(settings, checked)
    checked = dataclasses.replace(checked, notes=[*checked.notes, *_balance_notes(settings, split)])
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
    _refuse_changed_data(folder, settings, split)
    return _run(folder, settings, split, build_model(settings, split), None, report)


def is_main_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def leave_process_group() -> None:
    """Leave torchrun's group in order, when all processes are done with training and hold no trainer any more."""
    if not distributed.is_initialized():
        return
    group = distributed.group.WORLD
    distributed.barrier()
    distributed.destroy_process_group()
    # The trainer's wrapped model refers to the group from a cycle. Were it still there at the end of the interpreter,
    # a thread of gloo that then asks for the GIL would abort the process.
    gc.collect()
    del group  # the last reference, dropped here without the GIL: joins the threads


def _check(settings: TrainSettings, report: Report) -> CheckedData:
    usual = 512 if settings.model == "sam-tiny" else 1024
    checked = check_data(
        settings,
        progress=lambda done, total: report(Checking(done, total)),
        image_size=settings.image_size or usual,
    )
    labels = checked.labels
    if problem := metric_problem(settings.metric, labels.num_classes, multilabel=labels.multilabel):
        raise SettingsError(f"{problem}.")
    return checked


def _split(settings: TrainSettings, checked: CheckedData) -> Split:
    """The samples, and what the training does about rare classes: settled now, so that a resumed run does the same."""
    pixels = [checked.train_pixels[sample.name] for sample in checked.splits["train"]]
    weights, repeats = settings.class_weights, None
    if weights == BALANCED:
        weights = list(balanced_weights([sum(counts) for counts in zip(*pixels, strict=True)]))
    if settings.oversample == "class":
        held = [{c for c, count in enumerate(counts) if c and count} for counts in pixels]
        repeats = repeat_factors(held, settings.oversample_below)
    return Split(
        checked.splits,
        checked.labels,
        dataclasses.replace(settings.data_part(), intensity=checked.intensity),
        checked.statistics,
        class_weights=tuple(weights) if isinstance(weights, list) else None,
        repeats=repeats,
    )


def _balance_notes(settings: TrainSettings, split: Split) -> list[str]:
    """What the settings about rare classes come to."""
    notes = []
    if settings.class_weights == BALANCED and split.class_weights is not None:
        named = zip(split.labels.classes, split.class_weights, strict=True)
        notes.append("weights in the loss: " + ", ".join(f"{name} {weight:.3g}" for name, weight in named))
    if split.repeats is not None:
        images, shown = len(split.repeats), math.ceil(sum(split.repeats))
        held = f"{100 * settings.oversample_below:g} %"
        notes.append(
            f"oversampling: an epoch shows {shown} images instead of {images}"
            if shown > images
            else f"oversampling changes nothing: at least {held} of the training images hold each class "
            "(--oversample_below)"
        )
    return notes


def _refuse_changed_data(folder: RunFolder, settings: TrainSettings, split: Split) -> None:
    """Raise a `SettingsError` if config.yaml says otherwise what the start of the run has settled in split.json."""
    if split.source is None:
        return
    # the places are kept absolutely and the intensity resolved; the others may be other ones now
    free = ("images", "masks", "colours", "intensity", "max_megapixels", "display_channels")
    names = [field.name for field in dataclasses.fields(DataSettings) if field.name not in free]
    changed = [name for name in names if getattr(settings, name) != getattr(split.source, name)]
    if changed:
        now, before = getattr(settings, changed[0]), getattr(split.source, changed[0])
        raise SettingsError(
            f"{folder.config}: {changed[0]}={now}, but the run began with {before}, by which its images are split and "
            "their masks read. Put that back, or train into a new folder."
        )


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
        checkpoints.remove_unfinished(folder.checkpoints)
        folder.rewind_log(done)
    precision = resolve_precision(settings.precision, pick_device(settings.device))
    blocks = trainer.prefix_cache.blocks if trainer.prefix_cache else None
    note = None if checkpoint is None else checkpoints.difference(checkpoint)
    parameters, steps = count_parameters(trainer.model), trainer.args.max_steps
    report(Started(checked, *parameters, precision, blocks, done, steps, settings.metric, note))
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
        if is_main_process():
            folder.append_log({"step": trainer.state.global_step, "error": str(error)})
        raise
    except OutputError as error:
        raise OutputError(f"{error} Continue with: convlora resume {quote(str(folder.path))}") from error
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
