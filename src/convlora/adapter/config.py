"""What a Conv-LoRA adapter is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peft import LoraConfig

PEFT_TYPE = "CONV_LORA"
NOISY_TOP_1 = ("balanced", "learned")
SOFT = ("soft", "soft-token")
ROUTINGS = (*NOISY_TOP_1, *SOFT, "random", "sum")
ACTIVATIONS = ("gelu", "none")
KERNEL_SIZES = (3, 1)
CONTEXTS = ("window", "image")

_CARD_SECTION = """
## Loading this adapter

Conv-LoRA is registered with PEFT by the `convlora` package. Import it before loading:

```python
import convlora.adapter  # registers the method
from peft import PeftModel

model = PeftModel.from_pretrained(base_model, "path/to/this/folder")
```
"""


@dataclass
class ConvLoraConfig(LoraConfig):
    """Configuration of Conv-LoRA: LoRA whose bottleneck holds a mixture of small convolutions.

    Zhong et al., *Convolution Meets LoRA*, ICLR 2024, arXiv 2401.17868. Everything of `peft.LoraConfig` that
    does not change LoRA's arithmetic applies: `target_modules`, `rank_pattern`, `modules_to_save`, `lora_dropout`, …
    The defaults are the paper's layer; `routing`, `residual`, `activation`, `kernel_size` and `context` take it apart.

    Args:
        r: Rank of the bottleneck; also the number of channels that the experts convolve.
        lora_alpha: The adapter's output is multiplied by `lora_alpha / r`.
        num_experts: Number of experts M; expert i convolves at i times the token grid, i = 1…M.
        routing: How each sample (each window, in a windowed block) gets its expert.
            "balanced" is the released behaviour: noisy top-1, the gate trained by the balance loss alone.
            "learned" keeps the same forward pass and lets the task train the gate too, straight-through.
            "soft" mixes all experts by the gate's softmax, which starts uniform; the task trains it, exactly.
            "soft-token" does so for every token, where the others take one decision for the whole grid.
            "random" draws an expert uniformly at every forward pass, a control; seed torch to repeat it.
            "sum" adds up all experts and has no gate, the paper's control. It is not their mean, where "soft" starts.
            An integer fixes one scale (1 = no up-sampling) and needs no gate; `num_experts` is then unused.
        num_prefix_tokens: Leading tokens of (b, n, c) inputs that are not on the grid, such as CLS; they get
            plain LoRA.
        grid: (height, width) of the token grid of (b, n, c) inputs; None infers a square.
        balance_weight: Multiplier of the load-balancing loss of `convlora.balance_loss`; 0 turns it off.
        residual: Add the low-rank map to the expert's answer, as the released code: B(z + E(z)) rather than B(E(z)).
        activation: "gelu", or "none" for experts that are linear.
        kernel_size: 3, or 1 for experts that mix channels only and see other tokens through resampling alone.
        context: "window" routes and convolves each entry of the first axis by itself, as the released code. "image"
            puts the windows of a windowed block together first, without padding, so that experts see across their
            borders and the gate chooses once an image. `SamForSemanticSegmentation` knows its windows; for other
            models call `convlora.adapter.set_image_grid`.
    """

    r: int = field(default=3, metadata={"help": "Rank of the bottleneck."})
    lora_alpha: int = field(default=32, metadata={"help": "The adapter's output is multiplied by lora_alpha / r."})
    num_experts: int = field(default=8, metadata={"help": "Expert i works at i times the token grid."})
    routing: str | int = field(default="balanced", metadata={"help": f"{', '.join(ROUTINGS)} or one scale."})
    num_prefix_tokens: int = field(default=0, metadata={"help": "Leading tokens that are not on the grid."})
    grid: tuple[int, int] | list[int] | None = field(default=None, metadata={"help": "Token grid of (b, n, c) inputs."})
    balance_weight: float = field(default=0.01, metadata={"help": "Multiplier of the load-balancing loss."})
    residual: bool = field(default=True, metadata={"help": "Add the low-rank map to the expert's answer."})
    activation: str = field(default="gelu", metadata={"help": "gelu or none, between convolution and resampling."})
    kernel_size: int = field(default=3, metadata={"help": "Side of the experts' kernels, 3 or 1."})
    context: str = field(default="window", metadata={"help": "Convolve inside each window, or over the whole image."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PEFT_TYPE
        problems = [*self._conv_lora_problems(), *self._lora_problems()]
        if problems:
            raise ValueError("ConvLoraConfig: " + "; ".join(problems))

    def _conv_lora_problems(self) -> list[str]:
        problems = [
            f"{name}={getattr(self, name)!r} must be an integer of at least 1"
            for name in ("r", "lora_alpha", "num_experts")
            if not _is_count(getattr(self, name))
        ]
        if not (self.routing in ROUTINGS or _is_count(self.routing)):
            problems.append(f"routing={self.routing!r} must be one of {', '.join(ROUTINGS)} or a scale of at least 1")
        if not (_is_count(self.num_prefix_tokens) or self.num_prefix_tokens == 0):
            problems.append(f"num_prefix_tokens={self.num_prefix_tokens!r} must be an integer of at least 0")
        if self.grid is not None and not (len(self.grid) == 2 and all(_is_count(side) for side in self.grid)):
            problems.append(f"grid={self.grid!r} must be (height, width) in tokens")
        if not 0 <= self.balance_weight < float("inf"):
            problems.append(f"balance_weight={self.balance_weight!r} must be finite and at least 0")
        if not isinstance(self.residual, bool):
            problems.append(f"residual={self.residual!r} must be True or False")
        choices = {"activation": ACTIVATIONS, "kernel_size": KERNEL_SIZES, "context": CONTEXTS}
        problems += [
            f"{name}={getattr(self, name)!r} must be one of {', '.join(map(str, allowed))}"
            for name, allowed in choices.items()
            if getattr(self, name) not in allowed or isinstance(getattr(self, name), bool)
        ]
        return problems

    def _lora_problems(self) -> list[str]:
        unsupported = [
            name
            for name in (
                "use_dora",
                "target_parameters",
                "layer_replication",
                "arrow_config",
                "trainable_token_indices",
            )
            if getattr(self, name, None)
        ]
        if not isinstance(self.init_lora_weights, bool) and self.init_lora_weights != "gaussian":
            unsupported.append(f"init_lora_weights={self.init_lora_weights!r}")
        return [f"{name} is not available in Conv-LoRA; leave it at its default" for name in unsupported]

    @property
    def scales(self) -> tuple[int, ...]:
        """Up-sampling factor of each expert."""
        return (self.routing,) if isinstance(self.routing, int) else tuple(range(1, self.num_experts + 1))

    @property
    def has_gate(self) -> bool:
        """Whether the routing has weights: with one expert, a random one or all of them there is nothing to choose."""
        return self.routing in (*NOISY_TOP_1, *SOFT) and self.num_experts > 1

    @property
    def has_noise(self) -> bool:
        """Whether the gate's noise has weights, and its choices are balanced."""
        return self.routing in NOISY_TOP_1 and self.num_experts > 1

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Save the configuration and add to the model card how to load the adapter."""
        super().save_pretrained(save_directory, **kwargs)
        card = Path(save_directory) / "README.md"
        text = card.read_text(encoding="utf-8") if card.exists() else "# Conv-LoRA adapter\n"
        if _CARD_SECTION not in text:
            card.write_text(text + _CARD_SECTION, encoding="utf-8")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
