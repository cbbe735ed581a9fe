"""Make a method known to PEFT."""

from __future__ import annotations

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTuner


def register(peft_type: str, config: type[PeftConfig], model: type[BaseTuner]) -> None:
    """Register a method with PEFT under the name that its configuration gives as `peft_type`.

    PEFT's own `register_peft_method` takes only members of its enum, which a package outside PEFT cannot extend.
    """
    PEFT_TYPE_TO_CONFIG_MAPPING[peft_type] = config
    PEFT_TYPE_TO_TUNER_MAPPING[peft_type] = model
    PEFT_TYPE_TO_PREFIX_MAPPING[peft_type] = model.prefix
