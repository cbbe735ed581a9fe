"""Configuration of SAM as a semantic segmenter."""

from __future__ import annotations

from transformers import SamConfig


class SamSegmentationConfig(SamConfig):
    """A `SamConfig` with classes, a loss and the label to ignore.

    `id2label` names the classes from 0 on. Two classes make a binary task with one mask (class 1 against the
    rest); K > 2 classes get one mask each, background included.
    """

    model_type = "sam_segmentation"

    loss: str = "structure"
    semantic_loss_ignore_index: int = 255

    @property
    def num_masks(self) -> int:
        """Mask tokens and hyper-networks of the decoder: 1 for a binary task, else one per class."""
        return 1 if self.num_labels <= 2 else self.num_labels

    @classmethod
    def from_sam(cls, config: SamConfig, *, id2label: dict[int, str], loss: str) -> SamSegmentationConfig:
        """Configuration for the classes of `id2label` on the architecture of a SAM checkpoint."""
        architecture = {
            name: getattr(config, name).to_dict()
            for name in ("vision_config", "prompt_encoder_config", "mask_decoder_config")
        }
        return cls(**architecture, id2label=id2label, label2id={v: k for k, v in id2label.items()}, loss=loss)
