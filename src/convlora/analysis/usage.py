"""How much each expert was used over a run's training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class UsageHistory:
    """Shares of the experts in each layer's training passes, gate noise included.

    Attributes:
        steps: (n,) the training step that each of n parts of the run ends with.
        layers: Names of the layers.
        shares: (n, layers, experts); those of a part and a layer sum to 1.
    """

    steps: np.ndarray
    layers: list[str]
    shares: np.ndarray

    def as_json(self, scales: Sequence[int]) -> dict[str, Any]:
        """Plain values: a list of the experts' shares for each layer and step."""
        shares = self.shares.round(4)
        by_layer = {name: shares[:, i].tolist() for i, name in enumerate(self.layers)}
        return {"scales": list(scales), "steps": self.steps.tolist(), "shares": by_layer}


def usage_history(lines: Sequence[Mapping[str, Any]]) -> UsageHistory | None:
    """What the lines of a run's routing.jsonl say; None if there are none."""
    if not lines:
        return None
    layers = list(lines[0]["usage"])
    sums = np.array([[line["usage"][name] for name in layers] for line in lines])
    return UsageHistory(np.array([line["step"] for line in lines]), layers, sums / sums.sum(-1, keepdims=True))
