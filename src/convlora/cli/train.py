"""`convlora train`: images and masks in, adapter, scores and report out."""

from __future__ import annotations

from collections.abc import Sequence

from convlora.cli.display import counting, print_results, quiet_libraries, training_display
from convlora.settings import from_arguments
from convlora.training.folder import RunFolder
from convlora.training.settings import TrainSettings


def run(arguments: Sequence[str]) -> None:
    """Train, then score the test images."""
    settings = from_arguments(
        TrainSettings,
        arguments,
        prog="convlora train",
        description="Fine-tune SAM on a folder of images and a folder of masks, paired by stem.",
    )
    from convlora.training.run import is_main_process, train

    quiet_libraries()
    with training_display() as display:
        folder = train(settings, display)
    if is_main_process():
        finish(folder)


def finish(folder: RunFolder) -> None:
    """Score the run's test images, write metrics and report, and say where everything is."""
    from convlora.evaluation.evaluate import EvaluateSettings, evaluate

    if folder.read_split().samples.get("test"):
        with counting("scoring test images") as progress:
            evaluation = evaluate(EvaluateSettings(run=str(folder.path)), progress)
        print_results([evaluation.result])
        print(f"report: {folder.report}")
    else:
        print("no scores: no images were set aside as test. Give --test_fraction, or use convlora evaluate")
    print(f"adapter: {folder.adapter}")
    print(f"next: convlora predict {folder.path} IMAGES --output MASKS")
