"""`convlora predict`: masks for new images."""

from __future__ import annotations

from collections.abc import Sequence

from convlora.cli.display import counting, quiet_libraries
from convlora.inference.settings import PredictSettings
from convlora.settings import from_arguments


def run(arguments: Sequence[str]) -> None:
    """Predict a folder of images."""
    settings = from_arguments(
        PredictSettings,
        arguments,
        prog="convlora predict",
        description="Write a mask for each image: NAME.png, pixel value = class id, at the image's own size.",
        positional=("run", "images"),
    )
    from convlora.inference.folder import predict_folder

    quiet_libraries()
    try:
        with counting("predicting") as progress:
            paths = predict_folder(settings, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted. Continue with the same command and --skip_existing.") from None
    print(f"{len(paths)} masks in {settings.output}")
