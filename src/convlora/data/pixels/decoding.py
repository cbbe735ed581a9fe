"""Open image files from anywhere without trusting them: the size first, then the pixels, upright.

Pillow's classes are called directly, not through `Image.open`: that one warns of and refuses large images by a
limit of its own, and silencing a warning is not safe in threads.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import IO, Any

from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    IMAGELENGTH,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    TiffImageFile,
)
from PIL.WebPImagePlugin import WebPImageFile

from convlora.data.settings import ImageLimits
from convlora.errors import ConvloraError, ImageError

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints what it says of broken files

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""Suffixes of image files, in lower case; upper case counts too. What a file is, its first bytes decide."""

DEFAULT_LIMITS = ImageLimits()

_LONGEST_REASON = 300
_OR_CHANNELS = ", read it as raw channels with --channels"
OR_CLASSES = ", say --task multilabel if each of its channels is a class"

_OPENERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": jpeg_factory,
    b"II*\x00": TiffImageFile,
    b"MM\x00*": TiffImageFile,
    b"II+\x00": TiffImageFile,
    b"MM\x00+": TiffImageFile,
    b"BM": BmpImageFile,
    b"RIFF": WebPImageFile,
}
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Embedded:
    """An image file that is stored inside of another file; its `str` says where, for messages."""

    where: str
    data: bytes = field(repr=False)

    def __str__(self) -> str:
        return self.where


@contextlib.contextmanager
def opened(source: str | PathLike[str] | Embedded, limits: ImageLimits, several: str = _OR_CHANNELS) -> Iterator[Any]:
    """Yield the Pillow image of a file whose header is within the limits; its pixels are not decoded yet.

    Args:
        source: The file.
        limits: Of its pixels.
        several: What else to do about a file of more channels than pictures have, for the message.

    Raises:
        ImageError: the file is missing, not an image of an allowed format, of several frames, empty or too large;
            or whatever went wrong while the caller decoded it.
    """
    path = source if isinstance(source, Embedded) else Path(source)
    with (
        image_errors(path, several=several),
        io.BytesIO(path.data) if isinstance(path, Embedded) else path.open("rb") as stream,
    ):
        image = _identify(path, stream)
        _check_header(path, image, limits)
        yield image


@contextlib.contextmanager
def decoding_errors(path: Path | Embedded, explain: Callable[[str], str]) -> Iterator[None]:
    """Turn whatever goes wrong while a file is opened and decoded into an `ImageError`; errors of ours pass.

    Args:
        path: Of the file.
        explain: What to say of a reason in the words of a library.
    """
    try:
        yield
    except ConvloraError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ImageError(f"{path}: cannot be opened ({error.strerror}).") from error
    except MemoryError as error:
        raise ImageError(f"{path}: not enough memory to decode it; lower --max_megapixels.") from error
    except Exception as error:  # decoders raise anything on hostile bytes: SyntaxError, struct.error, OverflowError …
        reason = " ".join(f"{type(error).__name__}: {error}".split())  # some have several lines
        raise ImageError(f"{path}: {explain(reason[:_LONGEST_REASON].removesuffix('.'))}") from error


def image_errors(
    path: Path | Embedded, remedy: str = "an 8-bit PNG", several: str = _OR_CHANNELS
) -> contextlib.AbstractContextManager[None]:
    """`decoding_errors` of an image file.

    Args:
        path: Of the file.
        remedy: What to save it as instead.
        several: See `opened`.
    """

    def explain(reason: str) -> str:
        instead = remedy + (several if "unknown pixel mode" in reason else "")
        what = f"damaged, or of a kind that cannot be read ({reason})"
        return f"{what}. Save it again as {instead}, or remove it from the data."

    return decoding_errors(path, explain)


def image_size(path: str | PathLike[str] | Embedded, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Height and width in pixels of the upright image.

    They are read from the header; only a PNG file is decoded, because its EXIF data may come last.

    Raises:
        ImageError: as `opened`.
    """
    with opened(path, limits) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):  # whether its `size` is upright depends on the version of Pillow
            width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
        sideways = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return (width, height) if sideways else (height, width)


def upright(image: Any) -> Image.Image:
    """Decode the pixels and turn them as the EXIF orientation says."""
    image.load()
    method = _TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation))
    return image if method is None else image.transpose(method)


def raw_mode(image: Any) -> str:
    """Pillow's name of the sample layout in the file, such as "L;4" or "RGB;16B"; "" if decoding has begun."""
    if not image.tile:
        return ""
    arguments = image.tile[0][3]
    return str(arguments if isinstance(arguments, str) else arguments[0])


def white_is_zero(image: Any) -> bool:
    """Whether a TIFF file stores white as 0; Pillow inverts such samples of up to 8 bits, but not deeper ones."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION, 0) == 0


def require_allowed_size(path: object, height: int, width: int, limits: ImageLimits) -> None:
    """Refuse an image that is empty, or larger than is allowed.

    Raises:
        ImageError: It is.
    """
    if width < 1 or height < 1:
        raise ImageError(f"{path}: an image of {height} x {width} pixels (height x width) holds nothing; remove it.")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{path}: {height} x {width} pixels (height x width) are {width * height / 1e6:.1f} megapixels, more than "
            f"the {limits.max_pixels / 1e6:g} allowed. Cut it into tiles, or raise --max_megapixels."
        )


def _identify(path: object, stream: IO[bytes]) -> Any:
    prefix = stream.read(16)
    stream.seek(0)
    for magic, opener in _OPENERS.items():
        if prefix.startswith(magic):
            return opener(stream)
    found = "an empty file" if not prefix else f"its first bytes are {prefix[:8]!r}"
    raise ImageError(f"{path}: not a PNG, JPEG, TIFF, BMP or WebP image ({found}). Convert it to PNG.")


def _check_header(path: object, image: Any, limits: ImageLimits) -> None:
    width, height = image.size
    require_allowed_size(path, height, width, limits)
    # A phone's JPEG of format MPO is one photo followed by smaller copies of it.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise ImageError(f"{path}: holds several pages or frames; split it into one file each.")
    if isinstance(image, TiffImageFile):
        _check_tiff(path, image)


def _check_tiff(path: object, image: Any) -> None:
    """Refuse what Pillow 13 decodes to wrong pixels without an error."""
    tags = image.tag_v2
    planes = len(image.getbands()) if tags.get(PLANAR_CONFIGURATION) == 2 else 1
    is_rgb, bits = tags.get(PHOTOMETRIC_INTERPRETATION) == 2, set(tags.get(BITSPERSAMPLE, (1,)))
    if tags.get(PLANAR_CONFIGURATION) == 2 and not (is_rgb and bits == {8}):
        raise ImageError(f"{path}: a TIFF of separate planes must be 8-bit RGB; give --channels, or save it as PNG.")
    covered = sum((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in image.tile)
    if covered < planes * tags[IMAGEWIDTH] * tags[IMAGELENGTH]:
        raise ImageError(f"{path}: damaged; a part of its pixels is not in the file. Get the image again.")
