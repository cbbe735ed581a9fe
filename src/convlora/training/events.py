"""What a run reports while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convlora.data.findings.checking import CheckedData


@dataclass(frozen=True)
class Checking:
    """So many of all images were checked."""

    done: int
    total: int


@dataclass(frozen=True)
class Started:
    """The data are good and the model is ready.

    Attributes:
        data: What the check found; None when a run is continued.
        trainable: Number of parameters that are trained.
        total: Number of parameters of the model.
        precision: Number format of the matrix products: fp32, bf16 or fp16.
        frozen_blocks: Encoder blocks whose answers are kept and not computed again; None if they are not kept.
        first_step: Steps done before, by the run that is continued.
        total_steps: Steps of the whole run.
        metric: Validation score that picks the best checkpoint.
        note: What the user should know about a run that is continued; None if there is nothing.
    """

    data: CheckedData | None
    trainable: int
    total: int
    precision: str
    frozen_blocks: int | None
    first_step: int
    total_steps: int
    metric: str
    note: str | None = None


@dataclass(frozen=True)
class Progress:
    """Where training stands; `scores` is set after a validation."""

    step: int
    total: int
    epoch: float
    loss: float | None = None
    scores: dict[str, float] | None = None


Event = Checking | Started | Progress
Report = Callable[[Event], None]


def silent(event: Event) -> None:
    """Report nothing."""
    del event
