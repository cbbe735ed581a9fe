"""What is known about one finished run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convlora import __version__
from convlora.adapter.parameters import added_parameters
from convlora.adapter.saving import WEIGHTS_FILE
from convlora.adapter.usage import has_choice
from convlora.evaluation.scoring import Scores
from convlora.inference.predictor import ADAPTER_FOLDER, Predictor
from convlora.training.folder import RunFolder


@dataclass(frozen=True)
class RunResult:
    """A run, its scores, and what it takes to show it.

    Attributes:
        name: Short name for tables.
        trainable: Number of parameters that were trained.
        adapter_bytes: Size of the weights file.
        scores: On the held-out images.
        log: Entries of log.jsonl.
        predictor: The tuned model.
        settings: Of the run, plain; empty for an adapter folder alone.
    """

    name: str
    trainable: int
    adapter_bytes: int
    scores: Scores
    log: list[dict[str, Any]]
    predictor: Predictor
    settings: dict[str, Any]

    @property
    def has_experts(self) -> bool:
        """Whether the adapter is a Conv-LoRA that favours some of its experts over others."""
        return has_choice(self.predictor.model.active_peft_config)

    def as_json(self) -> dict[str, Any]:
        """Plain values for metrics.json."""
        return {
            "name": self.name,
            "convlora": __version__,
            "trainable_parameters": self.trainable,
            "adapter_bytes": self.adapter_bytes,
            **self.scores.as_json(),
        }


def describe_run(path: Path, predictor: Predictor, scores: Scores, *, name: str | None = None) -> RunResult:
    """Collect what a run folder, or an adapter folder alone, says about itself."""
    folder = RunFolder(path)
    weights = path / ADAPTER_FOLDER / WEIGHTS_FILE
    if not weights.is_file():
        weights = path / WEIGHTS_FILE
    settings = folder.settings() if folder.config.is_file() else {}
    return RunResult(
        name=name or _name(settings) or path.absolute().name,
        trainable=sum(parameter.numel() for parameter in added_parameters(predictor.model).values()),
        adapter_bytes=weights.stat().st_size,
        scores=scores,
        log=folder.read_log(),
        predictor=predictor,
        settings=settings,
    )


def _name(settings: dict[str, Any]) -> str | None:
    return "unet" if settings.get("model") == "unet" else settings.get("method")
