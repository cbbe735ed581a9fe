"""MobileSAM: SAM's prompt encoder and mask decoder behind a TinyViT image encoder.

Zhang et al., *Faster Segment Anything: Towards Lightweight SAM for Mobile Applications*, 2023, arXiv 2306.14289.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig, SamConfig, SamMaskDecoderConfig, SamModel
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPositionalEmbedding, SamPromptEncoder

from convlora.sam.tiny_vit import TinyVitConfig, TinyVitEncoder


class MobileSamConfig(SamConfig):
    """A `SamConfig` whose vision part is a `TinyVitConfig`; the defaults are MobileSAM's."""

    model_type = "mobile_sam"

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    mask_decoder_config: dict[str, Any] | PreTrainedConfig | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if not isinstance(self.vision_config, TinyVitConfig):
            self.vision_config = TinyVitConfig(**(self.vision_config or {}))
        if self.mask_decoder_config is None:
            # SAM's own layer norms have torch's default here; transformers' default is another one
            self.mask_decoder_config = SamMaskDecoderConfig(layer_norm_eps=1e-5)
        super().__post_init__(**kwargs)


class MobileSamModel(SamModel):
    """transformers' `SamModel` with a TinyViT: the same prompts, outputs and processors."""

    config_class = MobileSamConfig

    def __init__(self, config: SamConfig) -> None:
        super(SamModel, self).__init__(config)  # SamModel's own would build a plain ViT
        self.shared_image_embedding = SamPositionalEmbedding(config.vision_config)
        self.vision_encoder = TinyVitEncoder(config.vision_config)
        self.prompt_encoder = SamPromptEncoder(config)
        config.mask_decoder_config._attn_implementation = config._attn_implementation
        self.mask_decoder = SamMaskDecoder(config.mask_decoder_config)
        self.post_init()


def sam_class(config: SamConfig) -> type[SamModel]:
    """The class of SAM that a configuration describes, by its image encoder."""
    return MobileSamModel if isinstance(config.vision_config, TinyVitConfig) else SamModel
