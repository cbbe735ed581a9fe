"""The yardstick that is not a SAM: a U-Net, trained from scratch."""

from convlora.unet.modeling import UNetForSemanticSegmentation, UNetSegmentationConfig

__all__ = ["UNetForSemanticSegmentation", "UNetSegmentationConfig"]
