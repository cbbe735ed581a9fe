"""NIfTI: a label volume on the voxels of the source, so that ITK-SNAP, 3D Slicer and others lay it on the image."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from convlora.conversion.context import Conversion
from convlora.conversion.pictures import Picture
from convlora.conversion.texts import put_text
from convlora.conversion.volumes import collect_volumes, file_name
from convlora.data.extras import need
from convlora.data.scientific.geometry import NiftiGeometry
from convlora.errors import DataError


def write(pictures: Iterable[Picture], folder: Path, how: Conversion) -> list[str]:
    """Write VOLUME.nii.gz, uint8 with the affine, shape and codes of its source, and labels.txt for ITK-SNAP.

    Raises:
        DataError: An image is no slice of a NIfTI volume, or its file is gone.
        SettingsError: nibabel is not installed.
    """
    nibabel = need("nibabel", "medical", "writing NIfTI")
    notes: list[str] = []
    taken: set[str] = set()
    for geometry, slices in collect_volumes(pictures, NiftiGeometry, how.labels, notes):
        name = file_name(geometry.path, ".nii.gz", taken)
        nibabel.save(_image(nibabel, geometry, geometry.as_stored(slices)), folder / name)
    rows = []
    for class_id, label in how.labels.id2label.items():
        quoted, shown = '"' + label.replace('"', "'") + '"', int(class_id > 0)
        rows.append((class_id, *how.labels.palette[class_id], shown, shown, shown, quoted))
    head = "# ITK-SnAP Label Description File: IDX R G B A VIS MSH LABEL\n"
    put_text(folder / "labels.txt", head + "".join(" ".join(map(str, row)) + "\n" for row in rows))
    return notes


def _image(nibabel: Any, geometry: NiftiGeometry, voxels: np.ndarray) -> Any:
    try:
        source = nibabel.load(geometry.path)
    except (OSError, nibabel.filebasedimages.ImageFileError) as error:
        raise DataError(f"{geometry.path}: cannot be read again for its header ({error}).") from error
    header = source.header.copy()
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0  # the window of the image's values
    header["descrip"] = b"labels by convlora"
    header.set_intent("label")
    return type(source)(np.ascontiguousarray(voxels), None, header)
