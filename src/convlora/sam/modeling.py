"""The Segment Anything Model as a semantic segmenter: image in, one mask per class out, no prompts."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, SamModel
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.models.sam.modeling_sam import SamPreTrainedModel

from convlora.errors import SettingsError, WeightsError
from convlora.objectives.losses import default_loss, get_loss
from convlora.objectives.set_loss import set_loss
from convlora.sam.attention import use_fused_attention
from convlora.sam.channels import extend_channels
from convlora.sam.checkpoints import locate
from convlora.sam.configuration import SET_LOSS, SamSegmentationConfig
from convlora.sam.decoder import PromptFreeMaskDecoder, SemanticMaskDecoder
from convlora.sam.mobile import sam_class
from convlora.sam.positions import mark_image_grid, resize_positions
from convlora.sam.prefix import encode_rest
from convlora.sam.queries import QueryMaskDecoder, class_scores, default_queries


class SamForSemanticSegmentation(SamPreTrainedModel):
    """transformers' `SamModel`, unforked, with a prompt-free mask decoder (paper, section 3.3).

    The prompt encoder is frozen and contributes only its "no mask given" embedding.
    """

    config_class = SamSegmentationConfig
    base_model_prefix = ""  # a checkpoint of ours is loaded as it is; a checkpoint of SAM goes through `from_sam`

    def __init__(self, config: SamSegmentationConfig, sam: SamModel | None = None) -> None:
        super().__init__(config)
        config.check()
        self.sam = sam_class(config)(config) if sam is None else sam
        if config.channels is not None:
            extend_channels(self.sam.vision_encoder, config.channels)
        self.sam.mask_decoder = _mask_decoder(config, sam)
        if sam is None:
            self.post_init()
        mark_image_grid(self.sam)
        self.sam.prompt_encoder.requires_grad_(False)
        self.sam.shared_image_embedding.requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | PathLike[str],
        *args: Any,
        id2label: dict[int, str] | None = None,
        loss: str | None = None,
        head: str | None = None,
        num_queries: int | None = None,
        image_size: int | None = None,
        channels: int | None = None,
        multilabel: bool | None = None,
        **kwargs: Any,
    ) -> SamForSemanticSegmentation:
        """Load a checkpoint of SAM in `SamModel` format, or one that this class saved.

        Args:
            name_or_path: "sam-tiny" (embedded), "mobile-sam" (`convlora convert` puts it in place), a folder, or a name
                on the model hub such as "facebook/sam-vit-base".
            id2label: Class names from 0 on, for a checkpoint of SAM; default {0: "background", 1: "foreground"}.
            loss: Name of a loss in `convlora.objectives.losses`; default that of a checkpoint of this class, else
                "structure" for a binary task, and "dice-ce" for more classes. Head "queries" takes "set" alone.
            head: "classes" makes one mask per class, "queries" masks of any class (`convlora.sam.queries`), for a
                checkpoint of SAM; default "classes".
            num_queries: Masks of head "queries"; default `convlora.sam.queries.default_queries`.
            image_size: Side of the input in pixels, a multiple of the patch; default the checkpoint's own. Half the
                side is a quarter of the tokens.
            channels: Number of raw channels, 1 to 16, for a checkpoint of SAM; default RGB (`convlora.sam.channels`).
            multilabel: Whether classes may overlap, for a checkpoint of SAM; then the loss is "dice-bce" by default.
            kwargs: Passed to transformers' `from_pretrained`, such as `dtype` (default float32) or `revision`.
                `attn_implementation` "eager" or "sdpa" keeps transformers' attention; the default is the exact fused
                one of `convlora.sam.attention`.

        Raises:
            WeightsError: There is no such checkpoint, or it is not a SAM.
            SettingsError: The classes are not numbered from 0, or the head, the loss or the size does not fit.
        """
        location = locate(name_or_path)
        config = _read_config(name_or_path, location, kwargs)
        kwargs.setdefault("dtype", torch.float32)
        fused = kwargs.get("attn_implementation") is None
        kwargs["use_safetensors"] = True  # the other format is pickle
        if config.model_type == SamSegmentationConfig.model_type:
            if id2label is not None and dict(id2label) != config.id2label:
                raise SettingsError(f"{name_or_path} was saved for the classes {config.id2label}, not {id2label}.")
            chosen = {"head": head, "num_queries": num_queries, "channels": channels, "multilabel": multilabel}
            for name, given in chosen.items():
                if given is not None and given != (saved := getattr(config, name)):
                    raise SettingsError(f"{name_or_path} was saved with {name}={saved!r}, not {given!r}.")
            model: SamForSemanticSegmentation = _load(super().from_pretrained, location, *args, **kwargs)
            if loss is not None:
                model.config.loss = loss
                model.config.check()
            if fused:
                use_fused_attention(model)
            if image_size is not None:
                resize_positions(model.sam, image_size)
            return model
        if config.model_type not in ("sam", "mobile_sam"):
            raise WeightsError(f"{name_or_path} holds a {config.model_type!r} model; this needs a SAM (`SamModel`).")
        sam = _load(sam_class(config).from_pretrained, location, **kwargs)
        sam.config.name_or_path = str(name_or_path)  # the embedded one by its name: its folder differs by machine
        return cls.from_sam(
            sam,
            id2label=id2label,
            loss=loss,
            head=head or "classes",
            num_queries=num_queries,
            image_size=image_size,
            channels=channels,
            multilabel=bool(multilabel),
            fused_attention=fused,
        )

    @classmethod
    def from_sam(
        cls,
        sam: SamModel,
        *,
        id2label: dict[int, str] | None = None,
        loss: str | None = None,
        head: str = "classes",
        num_queries: int | None = None,
        image_size: int | None = None,
        channels: int | None = None,
        multilabel: bool = False,
        fused_attention: bool = True,
    ) -> SamForSemanticSegmentation:
        """Turn a `SamModel` into a segmenter. The model is taken over, not copied.

        Args:
            sam: The model.
            id2label, loss, head, num_queries, image_size, channels, multilabel: As in `from_pretrained`.
            fused_attention: Compute the encoder's attention as `convlora.sam.attention` does: exact, faster, smaller.
        """
        id2label = {0: "background", 1: "foreground"} if id2label is None else dict(id2label)
        if len(id2label) < 2 or sorted(id2label) != list(range(len(id2label))):
            raise SettingsError(f"id2label={id2label} must name at least two classes, numbered from 0 (background).")
        if image_size is not None:
            resize_positions(sam, image_size)
        if head == "queries":
            loss = loss or SET_LOSS
            if num_queries is None:
                num_queries = default_queries(len(id2label), sam.config.mask_decoder_config.hidden_size)
        config = SamSegmentationConfig.from_sam(
            sam.config,
            id2label=id2label,
            loss=loss or default_loss(len(id2label), multilabel=multilabel),
            head=head,
            num_queries=num_queries,
            channels=channels,
            multilabel=multilabel,
        )
        config._attn_implementation = sam.config._attn_implementation
        config.name_or_path = sam.config.name_or_path
        if fused_attention:
            use_fused_attention(sam)
        return cls(config, sam).train(sam.training)

    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        prefix_states: Tensor | None = None,
        prefix_blocks: int = 0,
        **kwargs: Any,
    ) -> SemanticSegmenterOutput:
        """Segment a batch.

        Args:
            pixel_values: (b, 3, S, S) normalised images, or (b, C, S, S) with `config.channels`;
                S = `config.vision_config.image_size`.
            labels: (b, H, W) class ids, or bit fields (`convlora.data.labels.bits`) if classes may overlap, in any size
                that covers the same area; pixels of `semantic_loss_ignore_index`, such as padding, do not count.
            prefix_states: Instead of pixels, what `convlora.sam.prefix.encode_prefix` made of them,
            prefix_blocks: with so many blocks.

        Returns:
            `logits` (b, k, S/4, S/4), and `loss` if labels are given. k = 1 for a binary task with head "classes",
            else one per class, where they may overlap without the background; those of head "queries" are the
            `class_scores`, and None in a step of training: its loss does not need them, and they are as large as all
            masks together.
        """
        encoder = self.sam.vision_encoder
        if prefix_states is not None:
            embeddings = encode_rest(encoder, prefix_states, prefix_blocks)
        else:
            embeddings = encoder(self._checked(pixel_values)).last_hidden_state
        positions = self.sam.get_image_wide_positional_embeddings()
        no_mask = self.sam.prompt_encoder.no_mask_embed.weight[..., None, None]
        decoded = self.sam.mask_decoder(embeddings, positions, no_mask)
        ignore_index, loss = self.config.semantic_loss_ignore_index, None
        if self.config.head == "queries":
            masks, classes = decoded
            if labels is not None:
                loss = set_loss(masks, classes, labels, ignore_index)
                if self.training:
                    return SemanticSegmenterOutput(loss=loss)
            return SemanticSegmenterOutput(loss=loss, logits=class_scores(masks, classes))
        if labels is not None:
            full = F.interpolate(decoded.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
            of_task = {"multilabel": self.config.multilabel, "class_weights": self.config.class_weights}
            loss = get_loss(self.config.loss, **of_task)(full, labels, ignore_index)
        return SemanticSegmenterOutput(loss=loss, logits=decoded)

    def _checked(self, pixel_values: Tensor | None) -> Tensor:
        if pixel_values is None:
            raise ValueError("give pixel_values, or prefix_states with prefix_blocks")
        size, channels = self.config.vision_config.image_size, self.config.channels or 3
        if pixel_values.shape[-3] != channels:
            raise ValueError(f"pixel_values have {pixel_values.shape[-3]} channels; this model takes {channels}.")
        if tuple(pixel_values.shape[-2:]) != (size, size):
            raise ValueError(
                f"pixel_values are {tuple(pixel_values.shape[-2:])}; this model takes ({size}, {size}). "
                "Another size is set by from_pretrained(…, image_size=…)."
            )
        return pixel_values

    def get_input_embeddings(self) -> nn.Module:
        """The patch embedding."""
        return self.sam.vision_encoder.get_input_embeddings()


def _mask_decoder(config: SamSegmentationConfig, sam: SamModel | None) -> PromptFreeMaskDecoder:
    """The decoder of the head, copied from SAM's if there is one, else uninitialised."""
    if config.head == "queries":
        sizes = config.num_masks, config.num_labels
        if sam is None:
            return QueryMaskDecoder(config.mask_decoder_config, *sizes)
        return QueryMaskDecoder.from_sam(sam.mask_decoder, *sizes)
    if sam is None:
        return SemanticMaskDecoder(config.mask_decoder_config, config.num_masks)
    return SemanticMaskDecoder.from_sam(sam.mask_decoder, config.num_masks)


def _read_config(name_or_path: str | PathLike[str], location: str, options: dict[str, Any]) -> Any:
    """The configuration of a checkpoint, of whatever model it is."""
    hub = {name: options[name] for name in ("revision", "token", "cache_dir", "local_files_only") if name in options}
    try:
        return AutoConfig.from_pretrained(location, **hub)
    except Exception as error:  # a damaged config.json raises anything, also errors of the hub's own kinds
        raise WeightsError(
            f"no SAM checkpoint at {str(name_or_path)!r}: {_first_line(error)} Give 'sam-tiny', a folder that "
            "holds config.json and model.safetensors, or a name on the model hub."
        ) from error


def _load(from_pretrained: Callable[..., Any], location: str, *args: Any, **kwargs: Any) -> Any:
    """Load all weights, or raise a `WeightsError`; transformers fills in random numbers for those that are missing."""
    try:
        model, found = from_pretrained(location, *args, output_loading_info=True, **kwargs)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(
            f"the weights of {location} cannot be loaded: {_first_line(error)} Get the checkpoint again; it must hold "
            "config.json and model.safetensors."
        ) from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise WeightsError(
            f"{location} is incomplete: {len(missing)} tensors are missing, such as {missing[0]}. Get the checkpoint "
            "again."
        )
    return model


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".") + "."
