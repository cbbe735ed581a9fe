"""`convlora train`: images and masks in, adapter, scores and report out."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING

from convlora.cli.display import counting, print_results, quiet_libraries, training_display
from convlora.settings import from_arguments
from convlora.training.presets import with_preset
from convlora.training.settings import TrainSettings, from_dict

if TYPE_CHECKING:
    from convlora.training.folder import RunFolder


def run(arguments: Sequence[str]) -> None:
    """Train, then score the test images."""
    settings = from_arguments(
        TrainSettings,
        with_preset(arguments),
        prog="convlora train",
        description="Fine-tune SAM on a folder of images and a folder of masks, paired by stem. With --preset NAME, "
        "what is not given is as the paper has it for this set of `convlora data list`.",
    )
    from convlora.training.run import is_main_process, leave_process_group, train

    quiet_libraries()
    with training_display() as display:
        folder = train(settings, display)
    leave_process_group()
    if is_main_process():
        finish(folder)


def finish(folder: RunFolder) -> None:
    """Score the run's test images, write metrics and report, and say where everything is."""
    from convlora.evaluation.evaluate import evaluate
    from convlora.evaluation.settings import EvaluateSettings

    trained = from_dict(folder.settings(), source=folder.config)
    if folder.read_split().samples.get("test"):
        settings = EvaluateSettings(
            run=str(folder.path),
            device=trained.device,
            precision=trained.precision,
            max_megapixels=trained.max_megapixels,
        )
        with counting("scoring test images") as progress:
            evaluation = evaluate(settings, progress)
        print_results([evaluation.result])
        print(f"report: {folder.report}")
    else:
        print("no scores: no images are of the split test. For those of a folder with masks:")
        print(f"  convlora evaluate {quote(str(folder.path))} --images IMAGES --masks MASKS")
    print(f"adapter: {folder.adapter}")
    print(f"next: convlora predict {quote(str(folder.path))} IMAGES --output MASKS")
