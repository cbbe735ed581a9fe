"""An image with its mask of class ids, ready to be written in another format."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from scipy import ndimage

from convlora.data.labels.bits import unpack
from convlora.data.labels.format import LabelFormat
from convlora.data.pixels.channels import pixels_size
from convlora.data.pixels.images import read_image
from convlora.data.pixels.masks import read_mask, require_equal_sizes
from convlora.data.samples import Sample
from convlora.data.settings import ImageLimits
from convlora.data.sources import ImageSource
from convlora.errors import PairingError

_AROUND = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class Found:
    """One object: pixels of one class."""

    class_id: int
    top: int
    left: int
    mask: np.ndarray
    """bool (h, w): its pixels within its bounding box."""

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True)
class Picture:
    """An image and the classes of its pixels."""

    name: str
    """Different from that of all others; parts are separated by /."""
    image: ImageSource
    file: PurePosixPath
    """Where the image lies below the folder of all images; of a part of a file, where it would as a PNG."""
    ids: np.ndarray
    """uint8 (H, W) class ids and `ignore_index`; or int32 bit fields, if the classes may overlap."""
    labels: LabelFormat

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.ids.shape
        return height, width

    def objects(self, by: str) -> Iterator[Found]:
        """Its objects by class, then from the top down; see `ConversionOptions.objects`."""
        for class_id, rows, columns, mask in self._classes():
            if by == "classes":
                yield Found(class_id, rows.start, columns.start, mask)
                continue
            numbers, _ = ndimage.label(mask, _AROUND)
            for number, (inner_rows, inner_columns) in enumerate(ndimage.find_objects(numbers), 1):
                part = numbers[inner_rows, inner_columns] == number
                yield Found(class_id, rows.start + inner_rows.start, columns.start + inner_columns.start, part)

    def _classes(self) -> Iterator[tuple[int, slice, slice, np.ndarray]]:
        """Class ids that are there but 0, with the rows, columns and mask of the bounding box."""
        if self.labels.multilabel:
            for class_id in range(1, self.labels.num_classes):
                mask = unpack(self.ids, class_id)
                for rows, columns in ndimage.find_objects(mask.astype(np.uint8)):
                    yield class_id, rows, columns, mask[rows, columns]
            return
        boxes = ndimage.find_objects(self.ids, max_label=self.labels.num_classes - 1)
        for class_id, box in enumerate(boxes, 1):
            if box is not None:
                yield class_id, *box, self.ids[box] == class_id

    @property
    def ignored(self) -> int:
        """Number of pixels without a class."""
        return int(np.count_nonzero(self.ids == self.labels.ignore_index))

    def copy_image(self, folder: Path, limits: ImageLimits) -> str:
        """Put the image into a folder, below it where `file` says; return that place."""
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(self.image, Path):
            shutil.copyfile(self.image, path)
        else:
            Image.fromarray(read_image(self.image, limits)).save(path, format="PNG")
        return self.file.as_posix()


def read_pictures(
    samples: Sequence[Sample], labels: LabelFormat, limits: ImageLimits, channels: int | None = None
) -> Iterator[Picture]:
    """Decode one mask at a time and compare it with its image's size; images may have so many raw channels.

    Raises:
        PairingError: Names are not fit for files.
        ImageError: An image or a mask cannot be read.
        MaskError: A mask has another size than its image, or holds other values than `labels` knows.
    """
    files = _files(samples)
    for sample, file in zip(samples, files, strict=True):
        mask = sample.required_mask()
        values = read_mask(mask, limits)
        height, width = values.shape
        require_equal_sizes(sample, pixels_size(sample.image, limits, channels), (height, width))
        yield Picture(sample.name, sample.image, file, labels.decode(values, mask), labels)


def _files(samples: Sequence[Sample]) -> list[PurePosixPath]:
    parents = {sample.image.absolute().parent for sample in samples if isinstance(sample.image, Path)}
    root = Path(os.path.commonpath(parents)) if parents else Path()
    files = []
    for sample in samples:
        if ".." in PurePosixPath(sample.name).parts or sample.name.startswith("/"):
            raise PairingError(f"{sample.name!r} is no name for a file below the output folder. Rename the image.")
        if isinstance(sample.image, Path):
            files.append(PurePosixPath(sample.image.absolute().relative_to(root).as_posix()))
        else:
            files.append(PurePosixPath(f"{sample.name}.png"))
    return files
