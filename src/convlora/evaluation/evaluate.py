"""Evaluate a finished run: scores into metrics.json, pictures into report.html."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convlora.data.dataset import SegmentationDataset
from convlora.data.findings.checking import CheckedData, check_data
from convlora.data.pixels.images import ImageLimits
from convlora.data.pixels.masks import LabelFormat
from convlora.data.scientific.choosing import with_intensity
from convlora.data.settings import DataSettings
from convlora.errors import DataError, SettingsError
from convlora.evaluation.report import write_report
from convlora.evaluation.results import RunResult, describe_run
from convlora.evaluation.scoring import score
from convlora.evaluation.settings import EvaluateSettings
from convlora.files import write_json
from convlora.inference.predictor import Predictor
from convlora.training.folder import RunFolder


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation gave: the result, notes on the data, and where the files are (None: not written)."""

    result: RunResult
    notes: list[str]
    folder: Path | None


def evaluate(settings: EvaluateSettings, progress: Callable[[int, int], None] = lambda done, total: None) -> Evaluation:
    """Score a run and write metrics.json and report.html.

    Raises:
        DataError: There is nothing to score, or images and masks do not fit the run's classes.
        WeightsError: Of the run folder.
    """
    predictor = Predictor.from_folder(
        settings.run,
        model=settings.model,
        device=settings.device,
        precision=settings.precision,
        tile=settings.tile,
        overlap=settings.overlap,
    )
    dataset, labels, notes = _dataset(settings, predictor)
    result = describe_run(
        Path(settings.run),
        predictor,
        score(predictor, dataset, labels, batch_size=settings.batch_size, progress=progress),
    )
    own_test = settings.images is None and settings.split == "test"
    folder = Path(settings.output) if settings.output else Path(settings.run) if own_test else None
    if folder is not None:
        write_json(folder / "metrics.json", result.as_json())
        write_report(folder / "report.html", [result], dataset, labels)
    return Evaluation(result, notes, folder)


def _dataset(settings: EvaluateSettings, predictor: Predictor) -> tuple[SegmentationDataset, LabelFormat, list[str]]:
    limits = ImageLimits(int(settings.max_megapixels * 1e6))
    channels = predictor.processor.channels
    if settings.images is None:
        run = RunFolder(settings.run)
        if not run.config.is_file():
            raise SettingsError(
                f"{settings.run} is an adapter folder alone, which has no images of its own. Give --images and --masks."
            )
        split = run.read_split()
        samples = split.samples.get(settings.split, [])
        if not samples:
            raise DataError(
                f"{settings.run} set no images aside as {settings.split!r}. Give --images and --masks to score others."
            )
        samples = with_intensity(samples, settings.intensity) if settings.intensity is not None else samples
        return SegmentationDataset(samples, split.labels, limits=limits, channels=channels), split.labels, []
    checked = _checked(settings, predictor)
    parts = checked.splits
    given = any(sample.split for part in parts.values() for sample in part)
    samples = parts[settings.split] if given else [sample for part in parts.values() for sample in part]
    if not samples:
        raise DataError(f"{settings.images} has no images of split {settings.split!r}. Choose another --split.")
    return SegmentationDataset(samples, checked.labels, limits=limits, channels=channels), checked.labels, checked.notes


def _checked(settings: EvaluateSettings, predictor: Predictor) -> CheckedData:
    """Check the given images against the classes that the run was trained on."""
    run = RunFolder(settings.run)
    names = [predictor.id2label[i] for i in sorted(predictor.id2label)]
    source = None
    if run.split.is_file():
        split = run.read_split()
        labels, source = split.labels, split.source
    else:
        encoding = "bits" if predictor.multilabel else "ids"
        labels = LabelFormat(tuple(names), encoding, predictor.processor.ignore_index, multilabel=predictor.multilabel)
    how = dict[str, Any](mask_format=settings.mask_format or "auto")
    coloured = source is not None and source.mask_format == "colours" and settings.mask_format in (None, "colours")
    if settings.mask_format == "colours" and not coloured:
        raise SettingsError(
            f"mask_format=colours: {settings.run} was not trained on masks in colour. Give ids or auto."
        )
    if source is not None and coloured:
        how = {name: getattr(source, name) for name in ("mask_format", "colours", "colour_tolerance")}
    if source is not None and (coloured or predictor.multilabel):
        how["ignore_index"] = source.ignore_index
    data = DataSettings(
        **how,
        classes=source.classes if source is not None else names,
        mask_pattern=settings.mask_pattern,
        image_pattern=settings.image_pattern,
        class_map=source.class_map if source is not None else None,
        task="multilabel" if predictor.multilabel else "exclusive",
        images=str(settings.images),
        masks=settings.masks,
        val_fraction=0.0,
        test_fraction=0.0,
        max_megapixels=settings.max_megapixels,
        channels=predictor.processor.channels,
        intensity=settings.intensity or predictor.processor.intensity,
    )
    return check_data(data, labels=labels)
