"""Masks whose colours say the class: each pixel becomes its colour's number, and a table says what that means."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from convlora.data.labels.colour_distances import nearest_colours, require_distinct
from convlora.data.labels.colour_tables import TRANSPARENT, UNSURE, ColourTable, read_colours
from convlora.data.pixels.decoding import opened, raw_mode, upright
from convlora.data.readers.embedded import EmbeddedMask
from convlora.data.readers.found import FoundData
from convlora.data.samples import Sample
from convlora.data.settings import BACKGROUND, DataSettings, ImageLimits
from convlora.errors import DataError, MaskError, SettingsError

_LOOKED_AT = 16  # masks


@dataclass(frozen=True)
class ColourMask:
    """A mask file in colour."""

    source: Path | EmbeddedMask
    table: ColourTable = field(repr=False)
    tolerance: int = 0
    """Levels by which each of red, green and blue may differ from a colour of the table to count as it."""

    @property
    def path(self) -> Path:
        """The file that it is in."""
        return self.source if isinstance(self.source, Path) else self.source.path

    def __str__(self) -> str:
        return str(self.source)

    def read_mask(self, limits: ImageLimits) -> np.ndarray:
        """Values of the table's colours (`convlora.data.labels.colour_tables.value_of`), or `UNSURE`: int32 (H, W).

        Raises:
            ImageError: Not readable, or beyond the limits.
            MaskError: Half transparent, of 16 bits, or in colours that the table does not have.
        """
        values, unknown = self._values(limits)
        if unknown.any():
            near = nearest_colours(values[unknown], self.table, self.tolerance)
            if too_far := near.too_far(values.size, self.tolerance):
                raise MaskError(f"{self}: {too_far}")
            values[unknown] = near.values
        return values

    def unknown(self, limits: ImageLimits) -> tuple[np.ndarray, int]:
        """The values, 1-d, that are not in the table, one for each pixel; and the number of all pixels."""
        values, unknown = self._values(limits)
        return values[unknown], values.size

    def _values(self, limits: ImageLimits) -> tuple[np.ndarray, np.ndarray]:
        """Values as they are, and where they are not in the table."""
        source = self.source if isinstance(self.source, Path) else self.source.file()
        with opened(source, limits) as image:
            if ";16" in raw_mode(image) or image.mode in ("I", "F") or image.mode.startswith("I;16"):
                raise MaskError(
                    f"{self}: 16-bit values are no colours of {self.table.source}. Save it as 8-bit RGB PNG."
                )
            values = self._numbers(upright(image))
        known = np.array(sorted(value for _, value in self.table.entries))
        place = np.searchsorted(known, values).clip(max=len(known) - 1)
        return values, known[place] != values

    def _numbers(self, picture: Image.Image) -> np.ndarray:
        if not picture.has_transparency_data:
            return _packed(np.asarray(picture.convert("RGB")))
        channels = np.asarray(picture.convert("RGBA"))
        clear, partly = channels[..., 3] == 0, (channels[..., 3] > 0) & (channels[..., 3] < 255)
        if partly.any():
            raise MaskError(
                f"{self}: {np.count_nonzero(partly)} of {partly.size} pixels are half transparent, so their colour is "
                "not sure. Save the mask without smoothing and without an alpha channel."
            )
        values = _packed(channels[..., :3])
        values[clear] = TRANSPARENT
        return values


def in_colours(found: FoundData, settings: DataSettings) -> FoundData:
    """The same samples, their mask files read by the colours that the settings give.

    Raises:
        SettingsError: The table cannot be used, or the masks are no files.
        DataError: A mask that is looked at cannot be read.
    """
    if settings.colours is None:
        raise SettingsError(
            "mask_format=colours needs --colours FILE, whose lines are NAME R G B, or in YAML {name: '#rrggbb'}."
        )
    if found.labels is not None:
        raise SettingsError(f"mask_format=colours is given, but {settings.images} says itself what its masks mean.")
    table = read_colours(settings.colours)
    return with_table(found, table, settings)


def with_table(found: FoundData, table: ColourTable, settings: DataSettings) -> FoundData:
    """The same samples with masks in the colours of a table."""
    labels = table.labels(settings.ignore_index, unsure=settings.colour_tolerance > 0)
    require_distinct(table, settings.colour_tolerance)
    samples = [dataclasses.replace(s, mask=_coloured(s, table, settings.colour_tolerance)) for s in found.samples]
    notes = [*found.notes, f"masks read by the {len(table.entries)} colours of {table.source} (--mask_format colours)"]
    if BACKGROUND not in dict(table.entries):
        notes.append(f"{table.source} has no colour called {BACKGROUND}, so no pixel is of it")
    notes += _survey([s.mask for s in samples if isinstance(s.mask, ColourMask)], table, settings)
    return FoundData(samples, labels, notes=notes)


def _coloured(sample: Sample, table: ColourTable, tolerance: int) -> ColourMask:
    mask = sample.required_mask()
    if not isinstance(mask, Path | EmbeddedMask):
        raise SettingsError(f"mask_format=colours reads mask files in colour, but {mask} is none; leave it out.")
    return ColourMask(mask, table, tolerance)


def _survey(masks: list[ColourMask], table: ColourTable, settings: DataSettings) -> list[str]:
    """Look at some masks and say in one go what is unknown, rather than once for every mask.

    Raises:
        MaskError: Colours are not in the table.
    """
    some = masks[:: -(-len(masks) // _LOOKED_AT)]
    unknown, total = [], 0
    for mask in some:
        with contextlib.suppress(DataError):  # what is wrong with single files, the check tells
            values, pixels = mask.unknown(settings.limits)
            unknown.append((mask, values))
            total += pixels
    changed = np.concatenate([np.zeros(0, dtype=np.int32), *(values for _, values in unknown)])
    if not changed.size:
        return []
    near = nearest_colours(changed, table, settings.colour_tolerance)
    if too_far := near.too_far(total, settings.colour_tolerance):
        first = next(mask for mask, values in unknown if values.size)
        raise MaskError(f"{first} and others of {len(some)} masks looked at: {too_far}")
    unsure = int(np.count_nonzero(near.values == UNSURE))
    return [
        f"colours up to {settings.colour_tolerance} levels off count as those of the table (--colour_tolerance): in "
        f"{len(some)} masks looked at {100 * (changed.size - unsure) / total:.2g} % of the pixels; "
        f"{100 * unsure / total:.2g} % are further off and ignored"
    ]


def _packed(channels: np.ndarray) -> np.ndarray:
    red, green, blue = (channels[..., i].astype(np.int32) for i in range(3))
    packed: np.ndarray = red << 16 | green << 8 | blue
    return packed
