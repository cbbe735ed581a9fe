"""Conv-LoRA as a PEFT method. Importing this package registers it with PEFT under the name "CONV_LORA"."""

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from convlora.adapter.balance import balance_loss, set_token_grid
from convlora.adapter.config import PEFT_TYPE, ConvLoraConfig
from convlora.adapter.layer import ConvLoraLinear
from convlora.adapter.model import ConvLoraModel
from convlora.adapter.released import load_released_state_dict
from convlora.adapter.saving import load_adapter, save_adapter

# PEFT's own `register_peft_method` takes only members of its enum, which a package outside PEFT cannot extend.
PEFT_TYPE_TO_CONFIG_MAPPING[PEFT_TYPE] = ConvLoraConfig
PEFT_TYPE_TO_TUNER_MAPPING[PEFT_TYPE] = ConvLoraModel
PEFT_TYPE_TO_PREFIX_MAPPING[PEFT_TYPE] = ConvLoraModel.prefix

__all__ = [
    "ConvLoraConfig",
    "ConvLoraLinear",
    "ConvLoraModel",
    "balance_loss",
    "load_adapter",
    "load_released_state_dict",
    "save_adapter",
    "set_token_grid",
]
