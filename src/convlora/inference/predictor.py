"""A tuned segmenter that takes images and gives masks."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from shlex import quote

import numpy as np
import torch
from peft import PeftModel

from convlora.errors import WeightsError
from convlora.sam.precision import autocast, pick_device, resolve_precision, store_frozen
from convlora.sam.processing import SamSegmentationImageProcessor, class_probabilities, classes
from convlora.sam.saving import load_segmenter
from convlora.sam.segmenters import image_encoder
from convlora.sam.segmenting import segment

ADAPTER_FOLDER = "adapter"  # of a run


class Predictor:
    """Segments images of any size, each at its own size.

    Attributes:
        model: The segmenter, in evaluation mode. In low precision its frozen weights are stored so, and it runs under
            `convlora.sam.precision.autocast`; with precision "fp32" it is a plain module.
        processor: Prepares the images and restores the masks.
        precision: Number format of the matrix products: fp32, bf16 or fp16.
        id2label: Class names by id.
    """

    def __init__(self, model: PeftModel, processor: SamSegmentationImageProcessor, *, precision: str = "fp32") -> None:
        self.model = model.eval()
        self.processor = processor
        self.precision = precision
        self.device = next(model.parameters()).device
        self.id2label: dict[int, str] = model.get_base_model().config.id2label

    @classmethod
    def from_folder(
        cls,
        folder: str | PathLike[str],
        *,
        model: str | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> Predictor:
        """Load a run folder, or an adapter folder alone.

        Args:
            folder: What `convlora train` wrote, or the `adapter` folder in it.
            model: The base SAM, if it is not where it was during training.
            device: "auto" takes a GPU if there is one; "cpu"; or a name that torch knows.
            precision: "auto" is bf16 where the hardware has it, fp16 on older GPUs, else fp32; or one of these.

        Raises:
            WeightsError: The folder is incomplete or damaged, or the base model is another one.
        """
        path = Path(folder)
        if not path.is_dir():
            raise WeightsError(f"{path} is not a folder. Give a run folder, or the adapter folder in it.")
        if (path / ADAPTER_FOLDER).is_dir():
            path = path / ADAPTER_FOLDER
        elif (path / "config.yaml").is_file():
            raise WeightsError(
                f"the run in {path} is not finished. Continue it with `convlora resume {quote(str(path))}`."
            )
        where = pick_device(device)
        precision = resolve_precision(precision, where)
        tuned, processor = load_segmenter(path, model=model)
        if (encoder := image_encoder(tuned.get_base_model())) is not None:
            store_frozen(encoder, precision)
        return cls(tuned.to(where), processor, precision=precision)

    def logits(self, images: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Logits (k, H, W) float32 of each uint8 image (H, W, 3), RGB; k = 1 for a binary task."""
        with autocast(self.precision, self.device):
            return list(segment(self.model, self.processor, images))

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Class probabilities (K, H, W) float32 of one uint8 image (H, W, 3), RGB; they sum to 1."""
        return class_probabilities(self.logits([image])[0]).numpy()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Class ids (H, W) uint8 of one uint8 image (H, W, 3), RGB."""
        return classes(self.logits([image])[0]).numpy().astype(np.uint8)
