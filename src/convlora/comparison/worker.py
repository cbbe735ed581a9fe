"""One run of a study: train or continue, score, record, tidy up."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import traceback
from typing import Any

import torch

from convlora.comparison.predictions import as_picture
from convlora.comparison.records import Record
from convlora.comparison.tasks import MASKS, Task
from convlora.data.dataset import SegmentationDataset
from convlora.doctor.steps import peak_memory
from convlora.errors import ConvloraError, DataError, OutputError
from convlora.evaluation.results import RunResult, describe_run
from convlora.evaluation.scoring import score
from convlora.files import whole_folder, write_json
from convlora.inference.predictor import Predictor
from convlora.objectives.metrics import best
from convlora.sam.precision import pick_device
from convlora.training.events import Event, Progress, Started
from convlora.training.folder import RunFolder
from convlora.training.run import resume, train
from convlora.training.settings import TrainSettings, as_dict

_EFFORT = "effort.json"


def make(task: Task) -> None:
    """Make a run that no other process is at, and write its record: of its scores, or of its failure.

    Raises:
        OutputError: The disk is full or not writable. This is no fault of the run, so nothing is recorded.
        Interrupted: On SIGTERM, after a checkpoint was saved.
    """
    try:
        record = _record(task)
    except OutputError:
        raise
    except Exception as error:  # whatever it is: a run that fails is a result, too, and the others go on
        traceback.print_exc()
        record = Record(settings=as_dict(task.settings), error=_one_line(error))
    record.write(task.folder)
    _tidy(RunFolder(task.folder), task.keep)


def _record(task: Task) -> Record:
    settings, folder = task.settings, RunFolder(task.folder)
    effort = _Effort(folder, settings)
    try:
        if folder.config.is_file():
            resume(folder.path, effort)
        else:
            train(settings, effort)
    except KeyboardInterrupt:  # a checkpoint was saved, so what it took counts
        effort.save()
        raise
    effort.save()
    result, names = _score(folder, settings)
    write_json(folder.metrics, result.as_json())
    values = [entry.get(f"eval_{settings.metric}") for entry in folder.read_log()]
    known = [value for value in values if value is not None]
    return Record(
        settings=as_dict(settings),
        validation=best(known, settings.metric) if known else None,
        scores=result.scores.as_json()["scores"],
        images=[image.name for image in result.scores.images],
        classes=names,
        confusions=[matrix.tolist() for matrix in result.scores.confusions],
        adapter_bytes=result.adapter_bytes,
        device=_device_name(settings),
        **{**effort.known, "trainable": effort.known["trainable"] or result.trainable},
    )


def _score(folder: RunFolder, settings: TrainSettings) -> tuple[RunResult, list[str]]:
    """Score the test images, and keep what was predicted for them."""
    split = folder.read_split()
    predictor = Predictor.from_folder(folder.path, device=settings.device, precision=settings.precision)
    dataset = SegmentationDataset(
        split.samples["test"], split.labels, limits=settings.limits, channels=settings.channels
    )
    with whole_folder(folder.path / MASKS) as hidden:

        def keep(index: int, prediction: Any) -> None:
            picture = as_picture(prediction, multilabel=split.labels.multilabel)
            picture.save(hidden / f"{index}.png", optimize=True)

        scores = score(predictor, dataset, split.labels, batch_size=settings.batch_size, on_prediction=keep)
    return describe_run(folder.path, predictor, scores), list(split.labels.classes)


class _Effort:
    """What a run took, over all the processes that worked on it; kept in the run folder."""

    def __init__(self, folder: RunFolder, settings: TrainSettings) -> None:
        self.path = folder.path / _EFFORT
        self.device = pick_device(settings.device)
        self.known: dict[str, Any] = {"seconds": 0.0, "peak_memory": 0.0, "trainable": 0}
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # none yet, or damaged
            found = json.loads(self.path.read_text(encoding="utf-8"))
            self.known = {name: type(value)(found[name]) for name, value in self.known.items()}
        self.before = 0.0
        self.start: float | None = None

    def __call__(self, event: Event) -> None:
        """Start the clock, and stop it at each validation, where a killed run will continue."""
        if isinstance(event, Started):
            if event.data is not None and not event.data.splits["test"]:
                raise DataError("no images are set aside as test, so there is nothing to compare on.")
            self.start = time.monotonic()
            self.before = self.known["seconds"] if event.first_step else 0.0  # from step 0 nothing of before is left
            self.known["trainable"] = event.trainable
        if isinstance(event, Progress) and event.scores:
            self.save()

    def save(self) -> None:
        """Write down what is known by now; a run that was finished before adds nothing."""
        if self.start is not None:
            self.known["seconds"] = self.before + time.monotonic() - self.start
            self.known["peak_memory"] = max(self.known["peak_memory"], peak_memory(self.device))
            write_json(self.path, self.known)


def _tidy(folder: RunFolder, keep: str) -> None:
    """Remove what the table does not need."""
    if keep != "all":
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        shutil.rmtree(folder.prefix_cache, ignore_errors=True)
    if keep == "nothing":
        shutil.rmtree(folder.adapter, ignore_errors=True)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, ConvloraError) else f"{type(error).__name__}: {text}"


def _device_name(settings: TrainSettings) -> str:
    device = pick_device(settings.device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
