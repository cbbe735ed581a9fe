"""Methods that Conv-LoRA is compared with and that PEFT lacks. Importing this package registers them with PEFT."""

from convlora.adapter.baselines import bitfit, houlsby, sam_adapter, side, ssf, vpt
from convlora.adapter.baselines.bitfit import BitFitConfig, BitFitModel
from convlora.adapter.baselines.houlsby import HoulsbyConfig, HoulsbyModel
from convlora.adapter.baselines.sam_adapter import SamAdapterConfig, SamAdapterModel
from convlora.adapter.baselines.side import LstConfig, LstModel
from convlora.adapter.baselines.ssf import SSFConfig, SSFModel
from convlora.adapter.baselines.vpt import VptConfig, VptModel
from convlora.adapter.registration import register

register(bitfit.PEFT_TYPE, BitFitConfig, BitFitModel)
register(houlsby.PEFT_TYPE, HoulsbyConfig, HoulsbyModel)
register(ssf.PEFT_TYPE, SSFConfig, SSFModel)
register(vpt.PEFT_TYPE, VptConfig, VptModel)
register(side.PEFT_TYPE, LstConfig, LstModel)
register(sam_adapter.PEFT_TYPE, SamAdapterConfig, SamAdapterModel)

__all__ = [
    "BitFitConfig",
    "BitFitModel",
    "HoulsbyConfig",
    "HoulsbyModel",
    "LstConfig",
    "LstModel",
    "SSFConfig",
    "SSFModel",
    "SamAdapterConfig",
    "SamAdapterModel",
    "VptConfig",
    "VptModel",
]
