"""SAM as a semantic segmenter. Importing this package registers it with transformers' Auto classes."""

from transformers import AutoConfig, AutoImageProcessor, AutoModelForSemanticSegmentation

from convlora.sam.configuration import SamSegmentationConfig
from convlora.sam.mobile import MobileSamConfig
from convlora.sam.modeling import SamForSemanticSegmentation
from convlora.sam.processing import SamSegmentationImageProcessor

AutoConfig.register(SamSegmentationConfig.model_type, SamSegmentationConfig, exist_ok=True)
AutoConfig.register(MobileSamConfig.model_type, MobileSamConfig, exist_ok=True)
AutoModelForSemanticSegmentation.register(SamSegmentationConfig, SamForSemanticSegmentation, exist_ok=True)
AutoImageProcessor.register(
    SamSegmentationConfig, image_processor_classes={"pil": SamSegmentationImageProcessor}, exist_ok=True
)

__all__ = ["SamForSemanticSegmentation", "SamSegmentationConfig", "SamSegmentationImageProcessor"]
