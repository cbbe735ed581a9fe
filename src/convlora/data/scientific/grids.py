"""Whether the mask of a volume or raster lies on the same grid as its image; if not, what differs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from convlora.data.extras import need
from convlora.data.scientific.dicom import DicomSeries
from convlora.data.scientific.geotiff import GeoRaster
from convlora.data.scientific.nifti import NiftiVolume
from convlora.data.scientific.stacks import Stack
from convlora.errors import MaskError, PairingError

_MILLIMETRES = 0.1  # over the whole of a volume: headers hold single precision, and programs round
_PIXELS = 0.01


def require_equal_grids(image: Stack, mask: Stack) -> None:
    """Check that a mask has as many pictures as its image, of the same size, at the same place if both say theirs.

    Raises:
        PairingError: Their numbers differ.
        MaskError: Something else does.
    """
    if image.count != mask.count:
        raise PairingError(
            f"{mask.path} has {mask.count} {mask.unit or 'picture'}s, but its image {image.path} has {image.count}. "
            "Each slice or page of the image needs one of the mask."
        )
    if problems := list(_differences(image, mask)):
        raise MaskError(f"{mask.path} does not lie on the grid of its image {image.path}: {'; '.join(problems)}.")


def _differences(image: Stack, mask: Stack) -> Iterator[str]:
    if image.size != mask.size:
        yield f"{mask.size[0]} x {mask.size[1]} pixels (height x width) instead of {image.size[0]} x {image.size[1]}"
        return
    if isinstance(image, GeoRaster) and isinstance(mask, GeoRaster):
        yield from _raster_differences(image, mask)
    else:
        yield from _volume_differences(image, mask)


def _raster_differences(image: GeoRaster, mask: GeoRaster) -> Iterator[str]:
    if image.crs is not None and mask.crs is not None and image.crs != mask.crs:
        crs = need("rasterio.crs", "geo", "reading GeoTIFF").CRS
        own, other = crs.from_wkt(image.crs), crs.from_wkt(mask.crs)
        if own != other:
            yield f"reference system {_name(other)} instead of {_name(own)}"
    pixel = max(abs(value) for value in (*image.transform[:2], *image.transform[3:5]))
    height, width = image.size
    corners = np.array([(0, 0, 1), (width, 0, 1), (0, height, 1)], dtype=float).T
    own_corners, other_corners = (np.reshape(one.transform, (2, 3)) @ corners for one in (image, mask))
    if np.abs(own_corners - other_corners).max() > _PIXELS * pixel:
        yield f"transform {_numbers(mask.transform)} instead of {_numbers(image.transform)}"


def _name(crs: object) -> str:
    return str(crs.to_string())[:80]  # type: ignore[attr-defined]


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.10g}" for value in values) + ")"


def _volume_differences(image: Stack, mask: Stack) -> Iterator[str]:
    own, other = slice_grid(image), slice_grid(mask)
    even = own is not None and other is not None
    if not even:
        own, other = (
            _series_grid(one, even=False) if isinstance(one, DicomSeries) else slice_grid(one) for one in (image, mask)
        )
    if own is None or other is None:
        return
    height, width = image.size
    corners = np.array([[i, j, k, 1] for i in (0, image.count - 1) for j in (0, height - 1) for k in (0, width - 1)]).T
    distances = (own @ corners)[:3] - (other @ corners)[:3]
    if not even:  # programs write any spacing for such slices, but each must lie on its own rows and columns
        normal = np.cross(own[:3, 1], own[:3, 2])
        distances -= np.outer(normal, normal @ distances) / (normal @ normal)
    apart = float(np.linalg.norm(distances, axis=0).max())
    if apart > _MILLIMETRES:
        yield (
            f"affine, of slices, rows and columns in RAS, {_numbers(tuple(other[:3].ravel()))} instead of "
            f"{_numbers(tuple(own[:3].ravel()))}, which is up to {apart:.3g} mm apart"
        )


def slice_grid(stack: Stack) -> np.ndarray | None:
    """4 × 4, from (slice, row, column) of the pictures to millimetres in RAS; None if the file does not say.

    Of a DICOM series only with evenly spaced slices.
    """
    if isinstance(stack, NiftiVolume):
        turn = np.zeros((4, 4))
        for picture, (axis, back) in enumerate(zip(stack.axes, stack.backwards, strict=True)):
            turn[axis, picture] = -1 if back else 1
            turn[axis, 3] = stack.shape[axis] - 1 if back else 0
        turn[3, 3] = 1
        return np.asarray(stack.affine) @ turn
    return _series_grid(stack) if isinstance(stack, DicomSeries) else None


def _series_grid(series: DicomSeries, *, even: bool = True) -> np.ndarray | None:
    """That of a series; with `even` only if its slices are evenly spaced, else from its first to its last one."""
    first, last = series.instances[0], series.instances[-1]
    if first.position is None or last.position is None or first.direction is None or first.spacing is None:
        return None
    along_row, along_column = np.array(first.direction[:3]), np.array(first.direction[3:])
    grid = np.eye(4)
    start, end = np.array(first.position), np.array(last.position)
    step = (end - start) / (series.count - 1) if series.count > 1 else np.cross(along_row, along_column)
    positions = np.array([one.position for one in series.instances])
    if even and np.abs(positions - (start + np.arange(series.count)[:, None] * step)).max() > _MILLIMETRES:
        return None
    grid[:3, 0], grid[:3, 1], grid[:3, 2] = step, along_column * first.spacing[0], along_row * first.spacing[1]
    grid[:3, 3] = start
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid  # LPS to RAS
