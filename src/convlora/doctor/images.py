"""How many images there are to train on, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass

from convlora.data.pixels.channels import image_suffixes, pixels_size
from convlora.data.readers.finding import find_data
from convlora.data.readers.pairing import find_images
from convlora.data.sampling.splitting import split_samples
from convlora.data.settings import DataSettings

_LOOKED_AT = 50


@dataclass(frozen=True)
class ImageSet:
    """A folder of images."""

    count: int
    training: int
    """Those that would be trained on."""
    smallest: tuple[int, int]
    """(H, W) of the image of fewest pixels; as `largest`, among some fifty spread over the folder."""
    largest: tuple[int, int]
    """(H, W) of the image of most pixels."""
    decoded: float
    """Bytes of the decoded training images and masks, about."""


def look_at(images: str, masks: str | None, channels: int | None = None) -> ImageSet:
    """Count images, of so many raw channels or RGB, and read the headers of a few.

    Raises:
        PairingError: There are no images, or the masks do not match.
        ImageError: One of them is not readable.
    """
    settings = DataSettings(images=images, masks=masks, channels=channels)
    listed = images.lower().endswith(".csv")
    samples = find_data(settings).samples if masks or listed else find_images(images, image_suffixes(channels))
    training = len(split_samples(samples, settings, need_train=True)["train"])
    sizes = sorted(
        (pixels_size(sample.image, channels=channels) for sample in samples[:: -(-len(samples) // _LOOKED_AT)]),
        key=lambda size: size[0] * size[1],
    )
    pixels = sum(height * width for height, width in sizes) / len(sizes)
    depth = 4 if channels is None else 4 * channels + 1  # RGB, or float32 at most, and a class id
    return ImageSet(len(samples), training, sizes[0], sizes[-1], depth * pixels * training)
