"""Everything that can be set about an analysis; without torch, so that `convlora analyze --help` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from convlora.inference.settings import InferenceSettings


@dataclass(frozen=True, kw_only=True)
class AnalyzeSettings(InferenceSettings):
    """Analysis of a finished run on its own images."""

    images: int = 4
    """Test images that the chosen experts are drawn over; 0 leaves the drawings out."""
    attention_images: int = 16
    """Test images that the attention distances are averaged over; 0 leaves these out."""
    probe_images: int = 64
    """Training images that linear probes are fitted to, and test images that score them; 0 leaves the probes out."""
    layers: list[int] | None = None
    """Encoder blocks that are drawn and probed, counted from 0; default six, evenly spread."""
    seed: int = 0
    """Another number chooses other images where there are more than are asked for."""
    output: str | None = None
    """Folder for analysis.html and analysis.json; default the run folder."""

    def problems(self) -> list[str]:
        """Everything wrong with the values, one sentence each; empty if they can be used."""
        problems = super().problems()
        problems += [
            f"{name}={value} must be at least 0"
            for name in ("images", "attention_images", "probe_images", "seed")
            if (value := getattr(self, name)) < 0
        ]
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            problems.append(f"layers={self.layers} must be numbers of encoder blocks, counted from 0")
        return problems
