"""A tuned segmenter that takes images and gives masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from shlex import quote

import numpy as np
import torch
from peft import PeftModel

from convlora.data.labels.colours import Colour, class_colour
from convlora.errors import WeightsError
from convlora.sam.precision import autocast, pick_device, resolve_precision, store_frozen
from convlora.sam.processing import SamSegmentationImageProcessor
from convlora.sam.saving import load_segmenter
from convlora.sam.segmenters import image_encoder
from convlora.sam.segmenting import segment, segment_bands
from convlora.sam.tiling import Box

ADAPTER_FOLDER = "adapter"  # of a run


def adapter_folder(path: Path) -> Path:
    """The adapter folder of a run folder; another folder is taken for one."""
    return path / ADAPTER_FOLDER if (path / ADAPTER_FOLDER).is_dir() else path


class Predictor:
    """Segments images of any size, each at its own size.

    Attributes:
        model: The segmenter, in evaluation mode. In low precision its frozen weights are stored so, and it runs under
            `convlora.sam.precision.autocast`; with precision "fp32" it is a plain module.
        processor: Prepares the images and restores the masks.
        precision: Number format of the matrix products: fp32, bf16 or fp16.
        id2label: Class names by id.
        colours: RGB of each class by id, in which pictures show it.
        multilabel: Whether classes may overlap; then masks are bit fields (`convlora.data.labels.bits`).
    """

    def __init__(self, model: PeftModel, processor: SamSegmentationImageProcessor, *, precision: str = "fp32") -> None:
        self.model = model.eval()
        self.processor = processor
        self.precision = precision
        self.device = next(model.parameters()).device
        config = model.get_base_model().config
        self.id2label: dict[int, str] = config.id2label
        chosen = config.class_colours or [class_colour(i) for i in range(len(self.id2label))]
        self.colours: dict[int, Colour] = {i: (red, green, blue) for i, (red, green, blue) in enumerate(chosen)}
        self.multilabel: bool = processor.multilabel

    @classmethod
    def from_folder(
        cls,
        folder: str | PathLike[str],
        *,
        model: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        tile: int | None = None,
        overlap: float | None = None,
    ) -> Predictor:
        """Load a run folder, or an adapter folder alone.

        Args:
            folder: What `convlora train` wrote, or the `adapter` folder in it.
            model: The base SAM, if it is not where it was during training.
            device: "auto" takes a GPU if there is one; "cpu"; or a name that torch knows.
            precision: "auto" is bf16 where the hardware has it, fp16 on older GPUs, else fp32; or one of these.
            tile: Side in pixels of the tiles that larger images are cut into; 0 cuts none; None is as in training.
            overlap: Fraction of a tile that it shares with the next one; None is as in training.

        Raises:
            WeightsError: The folder is incomplete or damaged, or the base model is another one.
        """
        path = Path(folder)
        if not path.is_dir():
            raise WeightsError(f"{path} is not a folder. Give a run folder, or the adapter folder in it.")
        if (inner := adapter_folder(path)) != path:
            path = inner
        elif (path / "config.yaml").is_file():
            raise WeightsError(
                f"the run in {path} is not finished. Continue it with `convlora resume {quote(str(path))}`."
            )
        where = pick_device(device)
        precision = resolve_precision(precision, where)
        tuned, processor = load_segmenter(path, model=model)
        processor.tile = processor.tile if tile is None else tile or None
        processor.overlap = processor.overlap if overlap is None else overlap
        if (encoder := image_encoder(tuned.get_base_model())) is not None:
            store_frozen(encoder, precision)
        return cls(tuned.to(where), processor, precision=precision)

    def logits(self, images: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Logits (k, H, W) float32 of each image; k = 1 for a binary task; where classes may overlap, there is none for
        the background.

        Args:
            images: uint8 (H, W, 3), RGB; for a model of raw channels (H, W, C), as `read_channels` gives them.
        """
        with autocast(self.precision, self.device):
            return list(segment(self.model, self.processor, images))

    def bands(
        self,
        read: Callable[[Sequence[Box]], list[np.ndarray]],
        size: tuple[int, int],
        *,
        batch_size: int = 1,
        first: int = 0,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """First rows and logits (k, rows, W) of the bands of an image; see `convlora.sam.segmenting.segment_bands`."""
        with autocast(self.precision, self.device):
            yield from segment_bands(self.model, self.processor, read, size, batch_size=batch_size, first=first)

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Class probabilities (K, H, W) float32 of one image as of `logits`; they sum to 1.

        Where classes may overlap, each is for itself, and that of class 0 is what the most probable one leaves.
        """
        return self.processor.probabilities_of(self.logits([image])[0]).numpy()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Class ids (H, W) uint8 of one image as of `logits`; where they may overlap, bit fields (H, W) int32."""
        ids = self.processor.classes_of(self.logits([image])[0]).numpy()
        return ids.astype(np.int32 if self.multilabel else np.uint8)
