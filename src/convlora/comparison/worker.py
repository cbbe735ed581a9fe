"""One run of a study, in a process of its own: train or continue, score, record, tidy up."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from convlora.comparison.records import Record
from convlora.comparison.tasks import BUSY, DONE, INTERRUPTED, MASKS, REFUSED, Task
from convlora.data.dataset import SegmentationDataset
from convlora.doctor.steps import peak_memory
from convlora.errors import ConvloraError, DataError, OutputError
from convlora.evaluation.results import RunResult, describe_run
from convlora.evaluation.scoring import score
from convlora.files import output_errors, whole_folder, write_json
from convlora.inference.predictor import Predictor
from convlora.objectives.metrics import best
from convlora.sam.precision import pick_device
from convlora.training.events import Event, Progress, Started
from convlora.training.folder import RunFolder
from convlora.training.run import resume, train
from convlora.training.settings import TrainSettings, as_dict

_EFFORT = "effort.json"


def perform(task: Task) -> int:
    """Make a run, and write its record: of its scores, or of its failure.

    Returns:
        DONE, or BUSY if another process is at it.

    Raises:
        OutputError: The disk is full or not writable. This is no fault of the run, so nothing is recorded.
        Interrupted: On SIGTERM, after a checkpoint was saved.
    """
    with _claimed(task.folder) as mine:
        if not mine:
            return BUSY
        if Record.read(task.folder) is not None:  # another process was quicker
            return DONE
        try:
            record = _make(task)
        except OutputError:
            raise
        except Exception as error:  # whatever it is: a run that fails is a result, too, and the others go on
            traceback.print_exc()
            record = Record(settings=as_dict(task.settings), error=_one_line(error))
        record.write(task.folder)
        _tidy(RunFolder(task.folder), task.keep)
        return DONE


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Whether this run is ours; the claim ends with the process, however it ends."""
    path = folder.with_name(f".{folder.name}.lock")
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as stream:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                yield False
                return
            yield True


def _make(task: Task) -> Record:
    settings, folder = task.settings, RunFolder(task.folder)
    effort = _Effort(folder, settings)
    if folder.config.is_file():
        resume(folder.path, effort)
    else:
        train(settings, effort)
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
    dataset = SegmentationDataset(split.samples["test"], split.labels, limits=settings.limits)
    with whole_folder(folder.path / MASKS) as hidden:

        def keep(index: int, prediction: Any) -> None:
            Image.fromarray(prediction.astype("uint8")).save(hidden / f"{index}.png", optimize=True)

        scores = score(predictor, dataset, split.labels, batch_size=settings.batch_size, on_prediction=keep)
    return describe_run(folder.path, predictor, scores), list(split.labels.classes)


class _Effort:
    """What a run took, over all the processes that worked on it; kept in the run folder."""

    def __init__(self, folder: RunFolder, settings: TrainSettings) -> None:
        self.path = folder.path / _EFFORT
        self.device = pick_device(settings.device)
        self.known: dict[str, Any] = {"seconds": 0.0, "peak_memory": 0.0, "trainable": 0}
        with contextlib.suppress(OSError, ValueError):
            self.known = json.loads(self.path.read_text(encoding="utf-8"))
        self.before = self.known["seconds"]
        self.start: float | None = None

    def __call__(self, event: Event) -> None:
        """Start the clock, and stop it at each validation, where a killed run will continue."""
        if isinstance(event, Started):
            if event.data is not None and not event.data.splits["test"]:
                raise DataError("no images are set aside as test, so there is nothing to compare on.")
            self.start = time.monotonic()
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


def main() -> int:
    """Read a task from the first line of standard input, make the run, and return the exit code."""
    with contextlib.suppress(OSError):  # should memory run out, Linux ends this process and not the study
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    # without a buffer, whose lock a thread would hold when the interpreter ends
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as stream:
        task = Task.from_json(stream.readline().decode("utf-8"))
        threading.Thread(target=_stop_at_end_of, args=(stream,), daemon=True).start()
        try:
            return perform(task)
        except OutputError as error:
            sys.stderr.write(f"{' '.join(str(error).split())}\n")
            return REFUSED
        except KeyboardInterrupt:
            return INTERRUPTED


def _stop_at_end_of(stream: Any) -> None:
    """When the study closes its end, or is gone, stop as at Ctrl-C: finish the step, save, leave."""
    stream.read(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
