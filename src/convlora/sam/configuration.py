"""Configuration of SAM as a semantic segmenter."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig, SamConfig

from convlora.errors import SettingsError
from convlora.objectives.losses import check_loss
from convlora.sam.tiny_vit import TinyVitConfig

HEADS = ("classes", "queries")
SET_LOSS = "set"


class SamSegmentationConfig(SamConfig):
    """A `SamConfig` with classes, a head, a loss and the label to ignore.

    `id2label` names the classes from 0 on. With head "classes" two of them make a binary task with one mask (class 1
    against the rest), and K > 2 get one mask each, background included. With head "queries" there are `num_queries`
    masks, and each of them may be of any class (paper, section 3.3). With `multilabel` the classes may overlap: each
    but the background has one mask, of which the sigmoid is its probability.
    `class_weights` weigh the classes in the loss, and `class_colours` are their RGB values in pictures; one a class,
    background first.
    `channels` is None for RGB, or the number of raw channels (`convlora.sam.channels`).
    """

    model_type = "sam_segmentation"

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    head: str = "classes"
    num_queries: int | None = None
    loss: str = "structure"
    semantic_loss_ignore_index: int = 255
    channels: int | None = None
    multilabel: bool = False
    class_weights: list[float] | None = None
    class_colours: list[list[int]] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        vision = self.vision_config
        if isinstance(vision, dict) and vision.get("model_type") == TinyVitConfig.model_type:
            self.vision_config = TinyVitConfig(**vision)
        super().__post_init__(**kwargs)

    @property
    def num_masks(self) -> int:
        """Mask tokens of the decoder: `num_queries` if there are any, else 1 for a binary task, else one per class.

        With `multilabel` the background has none: it is where no class is.
        """
        if self.num_queries is not None:
            return self.num_queries
        if self.multilabel:
            return self.num_labels - 1
        return 1 if self.num_labels <= 2 else self.num_labels

    def check(self) -> None:
        """Raise a `SettingsError` unless head, loss, classes and queries fit each other."""
        if self.head not in HEADS:
            raise SettingsError(f"head={self.head!r} must be one of {', '.join(HEADS)}.")
        if (self.head == "queries") != (self.loss == SET_LOSS):
            raise SettingsError(
                f"head={self.head!r} cannot be trained with loss={self.loss!r}. Masks of any class are matched by "
                f"loss={SET_LOSS!r} with head='queries'; the other losses take one mask per class, head='classes'."
            )
        if self.head == "classes":
            if self.num_queries is not None:
                raise SettingsError(f"num_queries={self.num_queries} is for head='queries'; leave it out.")
            check_loss(self.loss, self.num_masks, multilabel=self.multilabel, class_weights=self.class_weights)
            return
        if self.multilabel:
            raise SettingsError(
                "head='queries' makes classes that exclude each other; with task=multilabel use classes."
            )
        if self.class_weights is not None:
            raise SettingsError("class_weights have no place in loss='set', that of head='queries'; leave them out.")
        most = self.mask_decoder_config.hidden_size
        count = self.num_queries
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= most:
            raise SettingsError(f"num_queries={count!r} must be between 1 and {most}, the width of a token.")

    @classmethod
    def from_sam(
        cls,
        config: SamConfig,
        *,
        id2label: dict[int, str],
        loss: str,
        head: str = "classes",
        num_queries: int | None = None,
        channels: int | None = None,
        multilabel: bool = False,
    ) -> SamSegmentationConfig:
        """Configuration for the classes of `id2label` on the architecture of a SAM checkpoint."""
        architecture = {
            name: getattr(config, name).to_dict()
            for name in ("vision_config", "prompt_encoder_config", "mask_decoder_config")
        }
        labels = {"id2label": id2label, "label2id": {v: k for k, v in id2label.items()}}
        return cls(
            **architecture,
            **labels,
            loss=loss,
            head=head,
            num_queries=num_queries,
            channels=channels,
            multilabel=multilabel,
        )
