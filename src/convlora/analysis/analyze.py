"""Analyse a finished run: pictures into analysis.html, numbers into analysis.json."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convlora import __version__
from convlora.adapter.usage import has_choice
from convlora.analysis import attention, figures, probe
from convlora.analysis.encoding import vit_blocks
from convlora.analysis.settings import AnalyzeSettings
from convlora.analysis.usage import usage_history
from convlora.analysis.windows import visible, window_edges
from convlora.data.dataset import SegmentationDataset
from convlora.data.pixels.display import visible_rgb
from convlora.data.settings import ImageLimits
from convlora.errors import SettingsError
from convlora.evaluation.routing import chosen_scales
from convlora.files import read_json_lines, write_json, write_text
from convlora.inference.predictor import Predictor
from convlora.sam.segmenters import image_encoder
from convlora.training.folder import RunFolder

PAGE = "analysis.html"
NUMBERS = "analysis.json"
_DRAWN_BLOCKS = 6


@dataclass(frozen=True)
class Analysis:
    """Where the files are, and what was left out and why."""

    folder: Path
    notes: list[str]


def analyze(settings: AnalyzeSettings, progress: Callable[[int, int], None] = lambda done, total: None) -> Analysis:
    """Analyse a run and write analysis.html and analysis.json.

    What does not apply to the run is left out, with a note.

    Raises:
        WeightsError: This is not a finished run folder, or it is damaged.
        DataError: The run's images are not there any more.
        SettingsError: The encoder has no such blocks.
    """
    folder = RunFolder.open(settings.run)
    predictor = Predictor.from_folder(
        settings.run, model=settings.model, device=settings.device, precision=settings.precision
    )
    work = _Work(settings, folder, predictor, progress)
    work.experts()
    work.usage()
    work.attention()
    work.probes()
    output = Path(settings.output or settings.run)
    numbers = {"run": folder.path.absolute().name, "convlora": __version__, **work.numbers, "notes": work.notes}
    write_json(output / NUMBERS, numbers)
    write_text(output / PAGE, _page(work))
    return Analysis(output, work.notes)


class _Work:
    """One analysis; each part adds its numbers and its pictures."""

    def __init__(
        self, settings: AnalyzeSettings, folder: RunFolder, predictor: Predictor, progress: Callable[[int, int], None]
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.split = folder.read_split()
        self.predictor = predictor
        self.progress = progress
        self.numbers: dict[str, Any] = {}
        self.pictures: dict[str, Any] = {}
        self.notes: list[str] = []
        self.done = 0
        self.config = predictor.model.active_peft_config
        self.windows = {number: block.window_size for number, block in vit_blocks(predictor)}
        self.blocks = self._blocks()
        self._note_what_is_left_out()
        test = "test" if self.split.samples.get("test") else "val"
        probed = image_encoder(predictor.model.get_base_model()) is not None and not predictor.multilabel
        self.drawn = self._choose(test, settings.images if has_choice(self.config) and self.windows else 0)
        self.looked_at = self._choose(test, settings.attention_images if self.windows else 0)
        self.train = self._choose("train", settings.probe_images if probed else 0)
        self.test = self._choose(test, settings.probe_images if probed else 0)
        self.total = len(self.drawn) + 2 * (len(self.looked_at) + len(self.train) + len(self.test))

    def _note_what_is_left_out(self) -> None:
        if not self.split.samples.get("test"):
            part = "its validation images" if self.split.samples.get("val") else "nothing that needs any"
            self.notes.append(f"the run set no test images aside; shown is {part}")
        if not has_choice(self.config):
            self.notes.append("the adapter has no experts to choose among, so none are shown")
        if self.predictor.multilabel:
            self.notes.append("classes may overlap, so a token has no one class, and there are no linear probes")
        if not self.windows:
            self.notes.append(
                "the encoder is not SAM's ViT, so neither experts over images nor attention distances are shown, and "
                "only its embedding is probed, if it has one"
            )

    def experts(self) -> None:
        """Draw the chosen experts over some images."""
        if not len(self.drawn):
            return
        drawings, numbers = [], []
        for i in range(len(self.drawn)):
            item = self.drawn[i]
            size = item["image"].shape[:2]
            choices = [c for c in chosen_scales(self.predictor, item["image"]) if c.layer in self.blocks]
            edges = [window_edges(self.predictor.processor, size, self._window(c.layer, c.scales)) for c in choices]
            choices = [
                dataclasses.replace(choice, scales=visible(choice, place))
                for choice, place in zip(choices, edges, strict=True)
            ]
            shown = visible_rgb(item["image"], self.predictor.processor.display_channels)
            picture = figures.experts_over_image(shown, choices, edges, self.config.scales)
            drawings.append({"name": item["name"], "size": f"{size[1]} × {size[0]}", "picture": picture})
            scales = [{"block": c.layer, "module": c.module, "scales": c.scales.tolist()} for c in choices]
            numbers.append({"image": item["name"], "layers": scales})
            self._report(i + 1)
        self._finish(len(self.drawn))
        self.numbers["experts"] = numbers
        self.pictures["drawings"] = drawings

    def usage(self) -> None:
        """Draw the use of each expert over training."""
        if not has_choice(self.config):
            return
        history = usage_history(read_json_lines(self.folder.routing))
        if history is None:
            self.notes.append("the run has no routing.jsonl, so the use of the experts over training is not known")
            return
        self.numbers["usage"] = history.as_json(self.config.scales)
        self.pictures["usage"] = figures.usage_over_training(history, self.config.scales)

    def attention(self) -> None:
        """Measure the attention distances before and after tuning."""
        if not len(self.looked_at):
            return
        before, after = self._before_and_after(
            lambda report: attention.attention_distances(
                self.predictor, self.looked_at, batch_size=self.settings.batch_size, progress=report
            ),
            len(self.looked_at),
        )
        self.numbers["attention_distance"] = {
            "definition": attention.DEFINITION,
            "images": len(self.looked_at),
            "before": {number: heads.tolist() for number, heads in before.items()},
            "after": {number: heads.tolist() for number, heads in after.items()},
        }
        self.pictures["attention"] = figures.attention_by_block(before, after)

    def probes(self) -> None:
        """Fit and score the linear probes before and after tuning."""
        if not len(self.train) or not len(self.test):
            return
        before, after = self._before_and_after(
            lambda report: probe.probe_scores(
                self.predictor,
                self.train,
                self.test,
                self.blocks,
                batch_size=self.settings.batch_size,
                progress=report,
            ),
            len(self.train) + len(self.test),
        )
        if not before:
            self.notes.append("no token of the chosen images has a class, so there are no linear probes")
            return
        self.numbers["linear_probe"] = {
            "definition": probe.DEFINITION,
            "training_images": len(self.train),
            "test_images": len(self.test),
            "before": {name: dataclasses.asdict(score) for name, score in before.items()},
            "after": {name: dataclasses.asdict(score) for name, score in after.items()},
        }
        self.pictures["probe"] = figures.probes_by_depth(before, after)

    def _before_and_after(self, measure: Callable[[Callable[[int], None]], Any], count: int) -> tuple[Any, Any]:
        with self.predictor.model.disable_adapter():
            before = measure(self._report)
        self._finish(count)
        after = measure(self._report)
        self._finish(count)
        return before, after

    def _report(self, done: int) -> None:
        self.progress(self.done + done, self.total)

    def _finish(self, count: int) -> None:
        self.done += count

    def _choose(self, part: str, count: int) -> SegmentationDataset:
        samples = self.split.samples.get(part, [])
        order = np.random.default_rng(self.settings.seed).permutation(len(samples))[:count]
        chosen = [samples[i] for i in sorted(order)]
        limits = ImageLimits(int(self.settings.max_megapixels * 1e6))
        channels = self.predictor.processor.channels
        return SegmentationDataset(chosen, self.split.labels, limits=limits, channels=channels)

    def _blocks(self) -> list[int]:
        """The blocks that are drawn and probed."""
        count = len(self.windows)
        if self.settings.layers is None:
            return sorted(set(np.linspace(0, count - 1, min(_DRAWN_BLOCKS, count)).round().astype(int).tolist()))
        if count and max(self.settings.layers) >= count:
            raise SettingsError(
                f"layers={self.settings.layers}: this encoder has {count} blocks; give numbers from 0 to {count - 1}."
            )
        return sorted(set(self.settings.layers))

    def _window(self, block: int, scales: np.ndarray) -> int:
        """Side of a block's windows in pixels of the input."""
        if scales.size == 1:
            return self.predictor.processor.size
        return self.windows[block] * self.predictor.model.get_base_model().config.vision_config.patch_size


def _page(work: _Work) -> str:
    from jinja2 import ChoiceLoader, Environment, PackageLoader

    loaders = [PackageLoader("convlora", package) for package in ("analysis", "evaluation")]
    environment = Environment(loader=ChoiceLoader(loaders), autoescape=True)
    page = environment.get_template("analysis.html").render(
        title="What tuning did",
        version=__version__,
        date=datetime.date.today().isoformat(),
        run=work.folder.path.absolute().name,
        notes=work.notes,
        routing=getattr(work.config, "routing", None),
        attention_note=attention.DEFINITION,
        attention_images=len(work.looked_at),
        probe_note=probe.DEFINITION,
        probe_images=(len(work.train), len(work.test)),
        **work.pictures,
    )
    return page.encode("utf-8", "backslashreplace").decode()  # file names need not be valid Unicode
