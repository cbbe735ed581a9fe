"""The masks of slices as volumes again."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from convlora.conversion.pictures import Picture
from convlora.data.labels.format import LabelFormat
from convlora.data.samples import first_few, stem
from convlora.data.scientific.geometry import DicomGeometry, NiftiGeometry, geometry_of
from convlora.errors import DataError, MaskError

VolumeGeometry = TypeVar("VolumeGeometry", NiftiGeometry, DicomGeometry)


def collect_volumes(
    pictures: Iterable[Picture], kind: type[VolumeGeometry], labels: LabelFormat, notes: list[str]
) -> Iterator[tuple[VolumeGeometry, np.ndarray]]:
    """The geometry and the class ids or `ignore_index`, uint8 (slices, H, W), of every volume, as soon as it is whole.

    Args:
        pictures: In any order.
        kind: Of the geometry that images must have.
        labels: Of the masks.
        notes: Gets one if slices are missing; these are background.

    Raises:
        DataError: An image is no slice of such a volume, or slices of one volume differ in size.
        MaskError: Classes overlap.
    """
    if labels.multilabel:
        raise MaskError(
            "the classes of this model overlap, which one label a voxel cannot hold. Choose coco, labelme, yolo, "
            "cvat or geojson."
        )
    volumes: dict[Hashable, tuple[VolumeGeometry, np.ndarray, set[int]]] = {}
    picture: Picture
    for picture in pictures:
        geometry = geometry_of(picture.image)
        if not isinstance(geometry, kind):
            name = {NiftiGeometry: "NIfTI volume", DicomGeometry: "DICOM series"}[kind]
            fits = {NiftiGeometry: "nifti", DicomGeometry: "dicom-seg"}.get(type(geometry), "coco or colours")
            raise DataError(f"{picture.image} is no slice of a {name}, so its mask cannot become one. Choose {fits}.")
        if geometry.volume not in volumes:
            empty = np.zeros((geometry.count, *picture.size), dtype=np.uint8)
            volumes[geometry.volume] = geometry, empty, set(range(geometry.count))
        _, slices, missing = volumes[geometry.volume]
        if slices.shape[1:] != picture.size:
            raise DataError(
                f"{picture.image}: its mask of {picture.size} differs in size from other slices {slices.shape[1:]}."
            )
        slices[geometry.index] = picture.ids
        missing.discard(geometry.index)
        if not missing:
            del volumes[geometry.volume]
            yield geometry, slices
    if volumes:
        count = sum(len(missing) for _, _, missing in volumes.values())
        places = first_few(geometry.path for geometry, _, _ in volumes.values())
        notes.append(f"{count} slices have no mask and are background, of {places}")
    yield from ((geometry, slices) for geometry, slices, _ in volumes.values())


def file_name(path: Path, suffix: str, taken: set[str]) -> str:
    """A name for what belongs to a source file or folder, different from those taken, which it joins."""
    name = f"{stem(path) or 'volume'}{suffix}"
    number = 1
    while name in taken:
        number += 1
        name = f"{stem(path) or 'volume'}_{number}{suffix}"
    taken.add(name)
    return name
