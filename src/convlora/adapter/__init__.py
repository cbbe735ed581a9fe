"""Conv-LoRA as a PEFT method. Importing this package registers it with PEFT under the name "CONV_LORA".

The methods of `convlora.adapter.baselines` are registered too.
"""

from convlora.adapter import baselines
from convlora.adapter.balance import balance_loss, set_image_grid, set_token_grid
from convlora.adapter.config import PEFT_TYPE, ConvLoraConfig
from convlora.adapter.layer import ConvLoraLinear
from convlora.adapter.model import ConvLoraModel
from convlora.adapter.registration import register
from convlora.adapter.released import load_released_state_dict
from convlora.adapter.saving import load_adapter, save_adapter

register(PEFT_TYPE, ConvLoraConfig, ConvLoraModel)

__all__ = [
    "ConvLoraConfig",
    "ConvLoraLinear",
    "ConvLoraModel",
    "balance_loss",
    "baselines",
    "load_adapter",
    "load_released_state_dict",
    "save_adapter",
    "set_image_grid",
    "set_token_grid",
]
