"""DICOM-SEG: a segmentation object for each series, which refers to its slices."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from convlora import __version__
from convlora.conversion.context import Conversion
from convlora.conversion.pictures import Picture
from convlora.conversion.volumes import collect_volumes, file_name
from convlora.data.extras import need
from convlora.data.labels.format import LabelFormat
from convlora.data.scientific.geometry import DicomGeometry
from convlora.errors import DataError

_PURPOSE = "writing DICOM-SEG"
_SCHEME = "99CONVLORA"  # names beginning with 99 are for codes of one's own


def write(pictures: Iterable[Picture], folder: Path, how: Conversion) -> list[str]:
    """Write SERIES.dcm: binary, a segment a class but the background, numbered by class id and labelled by name.

    Raises:
        DataError: An image is no slice of a DICOM series, or highdicom cannot refer to it.
        SettingsError: highdicom is not installed.
    """
    need("highdicom", "medical", _PURPOSE)
    notes: list[str] = []
    taken: set[str] = set()
    for geometry, slices in collect_volumes(pictures, DicomGeometry, how.labels, notes):
        slices[slices == how.labels.ignore_index] = 0
        name = file_name(geometry.path, ".dcm", taken)
        if not slices.any():
            notes.append(f"{geometry.path} has no object, and DICOM-SEG cannot say so: no file")
            continue
        try:
            segmentation = _segmentation(geometry, slices, how.labels)
        except (ValueError, TypeError, AttributeError, LookupError, OSError) as error:  # of highdicom, in words
            raise DataError(f"{geometry.path}: no DICOM-SEG can refer to this series ({error}).") from error
        segmentation.save_as(folder / name)
    return notes


def _segmentation(geometry: DicomGeometry, slices: np.ndarray, labels: LabelFormat) -> Any:
    seg, pydicom = need("highdicom.seg", "medical", _PURPOSE), need("pydicom", "medical", _PURPOSE)
    generate_uid = need("pydicom.uid", "medical", _PURPOSE).generate_uid
    files = list(dict.fromkeys(path for path, _ in geometry.instances))
    sources = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    if len(files) == 1:  # slices are frames of one file, which highdicom takes in their order there
        frames = np.empty_like(slices)
        for place, (_, frame) in zip(slices, geometry.instances, strict=True):
            frames[frame] = place
        slices = frames
    return seg.Segmentation(
        source_images=sources,
        pixel_array=slices,
        segmentation_type="BINARY",
        segment_descriptions=_segments(labels),
        series_instance_uid=generate_uid(),
        series_number=1000,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="convlora",
        manufacturer_model_name="convlora",
        software_versions=__version__,
        device_serial_number="0",
        series_description="Segmentation by convlora",
        omit_empty_frames=True,
    )


def _segments(labels: LabelFormat) -> list[Any]:
    seg, highdicom = need("highdicom.seg", "medical", _PURPOSE), need("highdicom", "medical", _PURPOSE)
    codes = need("pydicom.sr.codedict", "medical", _PURPOSE).codes
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="convlora", version=__version__, family=codes.cid7162.ArtificialIntelligence
    )
    return [
        seg.SegmentDescription(
            segment_number=class_id,
            segment_label=name[:64],  # what DICOM allows
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=highdicom.sr.CodedConcept(str(class_id), _SCHEME, name[:64]),
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
        )
        for class_id, name in labels.id2label.items()
        if class_id
    ]
