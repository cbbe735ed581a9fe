"""The Conv-LoRA layer: a frozen linear layer, LoRA beside it, and a convolution inside LoRA's bottleneck."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from convlora.adapter.config import SOFT, ConvLoraConfig
from convlora.adapter.experts import apply_experts, init_experts, mix_experts
from convlora.adapter.gate import Routing, route, route_randomly, route_softly, route_to_all, route_to_only
from convlora.adapter.windows import cut_windows, join_windows


class ConvLoraLinear(nn.Module, LoraLayer):
    """`h = W0 x + b + (α/r) · B (z + E_i(z))`, `z = A x`, `i` chosen by the gate from the mean of `z`.

    Equation 4 of the paper with the residual `z` of the released code. Inputs are (b, h, w, c), or (b, n, c) with
    n = prefix tokens + h·w; the expert is chosen per entry of the first axis, which in SAM's windowed blocks runs over
    images × windows. Gate and experts compute in float32 (float64 for float64 inputs), under autocast too.
    `ConvLoraConfig` has variants of each part.

    Attributes:
        token_grid: (height, width) of the (b, n, c) inputs to come; overrides the configuration's `grid`.
        image_grid: (height, width) in tokens of a whole image, for `context="image"`; taken from the base layer's
            attribute of this name, which a model with windows sets. Inputs smaller than it are windows.
    """

    adapter_layer_names = (
        *LoraLayer.adapter_layer_names,
        "lora_expert_weight",
        "lora_expert_bias",
        "lora_gate",
        "lora_noise",
    )
    other_param_names = (*LoraLayer.other_param_names, "conv_lora", "routing")

    # What PEFT's LoraLayer sets up, for the type checker
    base_layer: nn.Module
    lora_A: nn.ModuleDict
    lora_B: nn.ModuleDict
    lora_dropout: nn.ModuleDict
    _cast_input_dtype: Callable[[Tensor, torch.dtype], Tensor]
    scaling: dict[str, float]
    active_adapters: list[str]
    disable_adapters: bool

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: ConvLoraConfig,
        r: int,
        lora_alpha: int,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        LoraLayer.__init__(self, base_layer)
        self.lora_expert_weight = nn.ParameterDict()
        self.lora_expert_bias = nn.ParameterDict()
        self.lora_gate = nn.ParameterDict()
        self.lora_noise = nn.ParameterDict()
        self.conv_lora: dict[str, ConvLoraConfig] = {}
        # Of the last forward pass; None before. The key is always there: a compiled graph watches it.
        self.routing: dict[str, Routing | None] = {}
        self.token_grid: tuple[int, int] | None = None
        self.image_grid: tuple[int, int] | None = getattr(base_layer, "image_grid", None)
        self.fan_in_fan_out = False
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, lora_alpha, config=config, **kwargs)

    def update_layer(
        self,
        adapter_name: str,
        r: int,
        lora_alpha: int,
        config: ConvLoraConfig,
        **kwargs: Any,
    ) -> None:
        """Add an adapter (PEFT's hook)."""
        experts, k = len(config.scales), config.kernel_size
        # Made before LoRA's own weights, because PEFT initialises, moves and freezes all of them in one go.
        self.lora_expert_weight[adapter_name] = nn.Parameter(torch.empty(experts, r, r, k, k))
        self.lora_expert_bias[adapter_name] = nn.Parameter(torch.zeros(experts, r))
        init_experts(self.lora_expert_weight[adapter_name], self.lora_expert_bias[adapter_name])
        if config.has_gate:
            self.lora_gate[adapter_name] = nn.Parameter(torch.zeros(r, experts))
        if config.has_noise:
            self.lora_noise[adapter_name] = nn.Parameter(torch.zeros(r, experts))
        self.conv_lora[adapter_name] = config
        self.routing[adapter_name] = None
        super().update_layer(adapter_name, r, lora_alpha, config=config, **kwargs)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return (…, out_features), shaped like the base layer's output."""
        if kwargs.pop("adapter_names", None) is not None:
            raise ValueError("Conv-LoRA does not support several adapters in one batch (`adapter_names`).")
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            if name in self.lora_A:
                result = result + self._delta(name, x).to(result.dtype)
        return result

    def _delta(self, name: str, x: Tensor) -> Tensor:
        config = self.conv_lora[name]
        x = self._cast_input_dtype(x, next(self.lora_A[name].parameters()).dtype)
        z = self.lora_A[name](self.lora_dropout[name](x))
        prefix = config.num_prefix_tokens if z.dim() == 3 else 0
        grid = z[:, prefix:].view(z.shape[0], *self._grid(z, config), z.shape[-1]) if z.dim() == 3 else z
        if grid.dim() != 4:
            raise ValueError(
                f"Conv-LoRA got tokens of shape {tuple(x.shape)}; it needs (b, h, w, c), or (b, n, c) with n = h·w."
            )
        local = self._local(name, grid).reshape(z[:, prefix:].shape).to(z.dtype)
        if prefix:  # plain LoRA for them
            local = torch.cat([torch.zeros_like(z[:, :prefix]) if config.residual else z[:, :prefix], local], dim=1)
        return self.lora_B[name](z + local if config.residual else local) * self.scaling[name]

    def _local(self, name: str, grid: Tensor) -> Tensor:
        """What the experts make of low-rank maps (b, h, w, r); at least in float32."""
        config = self.conv_lora[name]
        size = (grid.shape[1], grid.shape[2])
        if config.context == "image":
            grid = join_windows(grid, self._image_grid())
        with torch.autocast(device_type=grid.device.type, enabled=False):
            # bf16 near-ties would route differently on different devices; r channels cost nothing in float32
            maps = grid.movedim(-1, 1).to(torch.promote_types(grid.dtype, torch.float32))
            routing = self._route(name, maps)
            if not _is_recomputation():
                self.routing[name] = routing
            weight, bias = (p[name].to(maps.dtype) for p in (self.lora_expert_weight, self.lora_expert_bias))
            if routing.shares is None:
                out = apply_experts(maps, weight, bias, routing.index, config.scales, config.activation)
            else:
                out = mix_experts(maps, weight, bias, routing.shares, config.scales, config.activation)
            if config.routing == "learned" and config.has_gate and self.training:
                out = out * routing.straight_through()[:, None, None, None]
        local = out.movedim(1, -1)
        return cut_windows(local, size) if config.context == "image" else local

    def _route(self, name: str, maps: Tensor) -> Routing:
        config = self.conv_lora[name]
        pooled = maps.mean((2, 3))
        if len(config.scales) == 1:
            return route_to_only(pooled)
        if config.routing == "random":
            return route_randomly(pooled, len(config.scales))
        if config.routing == "sum":
            return route_to_all(pooled, len(config.scales))
        if config.routing in SOFT:
            gate = self.lora_gate[name].to(maps.dtype)
            return route_softly(maps if config.routing == "soft-token" else pooled[:, :, None, None], gate)
        if self.training and not torch.is_grad_enabled():
            _refuse_reentrant_checkpointing()
        gate, noise = (weights[name].to(maps.dtype) for weights in (self.lora_gate, self.lora_noise))
        return route(pooled, gate, noise, training=self.training)

    def _image_grid(self) -> tuple[int, int]:
        if self.image_grid is None:
            raise ValueError(
                "Conv-LoRA with context='image' does not know how many tokens an image has here. Call "
                "convlora.adapter.set_image_grid(model, height, width), load the model as SamForSemanticSegmentation, "
                "or use context='window'."
            )
        return self.image_grid

    def _grid(self, z: Tensor, config: ConvLoraConfig) -> tuple[int, int]:
        tokens = z.shape[1] - config.num_prefix_tokens
        grid = self.token_grid or config.grid
        if grid is not None:
            height, width = grid
        else:
            height = width = math.isqrt(max(tokens, 0))
        if tokens < 1 or height * width != tokens:
            given = f"grid={tuple(grid)}" if grid is not None else "a square"
            raise ValueError(
                f"Conv-LoRA got {z.shape[1]} tokens, {config.num_prefix_tokens} of them prefix tokens; the other "
                f"{tokens} do not form {given}. Give ConvLoraConfig(num_prefix_tokens=…) for tokens such as CLS, "
                "ConvLoraConfig(grid=(height, width)) for a grid that is not square, or call "
                "convlora.adapter.set_token_grid(model, height, width) when it changes between batches."
            )
        return height, width

    def balance_loss(self) -> Tensor | None:
        """Weighted balance loss of the active adapters' last forward pass; None if nothing was balanced."""
        losses = [
            self.conv_lora[name].balance_weight * routing.balance_loss()
            for name in self.active_adapters
            # a weight of 0 too: DDP wants every gradient
            if name in self.lora_noise and (routing := self.routing[name]) is not None
        ]
        return torch.stack(losses).sum() if losses and not self.disable_adapters else None

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: the experts depend on the input."""
        raise ValueError(
            "Conv-LoRA cannot be merged into the base weights: its convolution experts see neighbouring tokens and are "
            "chosen by the input, which no weight matrix can do. Keep the adapter, or use `unload()` to drop it."
        )

    def unmerge(self) -> None:
        """Nothing is ever merged, so there is nothing to undo."""
        return

    def __getstate__(self) -> dict[str, Any]:
        # The last routing holds tensors of the autograd graph, which can be neither copied nor pickled.
        return {**self.__dict__, "routing": dict.fromkeys(self.routing)}

    def __repr__(self) -> str:
        return "conv_lora." + super().__repr__()


def _is_recomputation() -> bool:
    """Whether checkpointing runs this forward pass a second time, inside the backward pass.

    Its routing must not be kept: it would hold on to activations that checkpointing is there to free.
    """
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def _refuse_reentrant_checkpointing() -> None:
    """Raise if this forward pass runs inside torch's reentrant checkpointing."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_globals.get("__name__") == "torch.utils.checkpoint" and frame.f_code.co_name == "forward":
            raise RuntimeError(
                "Conv-LoRA does not train under reentrant gradient checkpointing: the first pass records no graph, so "
                "the balance loss would be lost. Use gradient_checkpointing_kwargs={'use_reentrant': False}."
            )
