"""Images whose masks are found by a pattern of their names, wherever in a tree of folders both are."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from convlora.data.pixels.decoding import IMAGE_SUFFIXES
from convlora.data.readers.annotated import sample_names
from convlora.data.readers.image_files import ImageIndex
from convlora.data.samples import Sample, counted, first_few, stem
from convlora.errors import PairingError, SettingsError

_BRACES = re.compile(r"\{[^{}]*\}|[{}]")


@dataclass(frozen=True)
class Patterns:
    """How the names of masks follow from those of images.

    Raises:
        SettingsError: A pattern has no {stem}, or other braces.
    """

    mask: str
    """Where an image's mask is, such as `{stem}_mask.png` or `{parent}/masks/{stem}.png`. {parent} is the folder of
    the image below the root; without it the place is relative to that folder. Without a suffix all suffixes fit."""
    image: str | None = None
    """File name of an image, in which {stem} stands for what the mask's place repeats; None for any image file, of
    which {stem} is the name without suffix."""

    def __post_init__(self) -> None:
        for name, text, allowed in (("mask", self.mask, ("{stem}", "{parent}")), ("image", self.image, ("{stem}",))):
            found = _BRACES.findall(text) if text is not None else ["{stem}"]
            if set(found) - set(allowed) or found.count("{stem}") < 1:
                raise SettingsError(
                    f"{name}_pattern={text!r} must hold {{stem}}, and no braces but {' and '.join(allowed)}, as in "
                    "'{stem}_mask.png', '{parent}/masks/{stem}.png' or, for one mask a class, '{stem}_{class}.png'."
                )
        if self.image is not None and (self.image.count("{stem}") > 1 or "/" in self.image):
            raise SettingsError(f"image_pattern={self.image!r} must be a file name with one {{stem}}, without folders.")

    @property
    def has_suffix(self) -> bool:
        """Whether the mask's place ends with the suffix of an image."""
        return self.mask.lower().endswith(IMAGE_SUFFIXES)

    def key(self, image: PurePosixPath) -> str | None:
        """What {stem} stands for; None if the file does not fit the pattern of images."""
        if self.image is None:
            return stem(Path(image.name))
        match = re.fullmatch(_expression(self.image, stem="(.+)"), unicodedata.normalize("NFC", image.name))
        return match[1] if match else None

    def place(self, image: PurePosixPath) -> str | None:
        """Where the mask is below the root of masks, as `comparable` writes it; None if there can be none."""
        key = self.key(image)
        if key is None:
            return None
        values = {"{stem}": key, "{parent}": image.parent.as_posix()}
        pattern = self.mask if "{parent}" in self.mask else "{parent}/" + self.mask
        place = posixpath.normpath(_BRACES.sub(lambda found: values[found[0]], pattern))
        return None if place.startswith(("..", "/")) else self._comparable(place)

    def comparable(self, mask: PurePosixPath) -> str:
        """The path of a mask, for comparison with the places of images."""
        return self._comparable(mask.as_posix() if self.has_suffix else mask.with_suffix("").as_posix())

    def fits_mask(self, file: PurePosixPath) -> bool:
        """Whether a file could be the mask of some image."""
        tail = self.mask.removeprefix("{parent}/").replace("../", "")
        expression = _expression(tail, stem="[^/]+", parent=".*")
        return re.fullmatch(rf"(?:.*/)?{expression}", self.comparable(file)) is not None

    def _comparable(self, path: str) -> str:
        text = unicodedata.normalize("NFC", path)
        start, dot, suffix = text.rpartition(".")
        return f"{start}{dot}{suffix.lower()}" if self.has_suffix else text


def find_by_pattern(images: str, masks: str | None, patterns: Patterns) -> list[Sample]:
    """Samples sorted by name.

    Args:
        images: Root folder of the images, which are at any depth.
        masks: Root folder of the masks; None if it is the same.
        patterns: How the masks' names follow.

    Raises:
        PairingError: A folder cannot be read, or not every file has exactly one partner.
    """
    root, mask_root = Path(images), Path(images if masks is None else masks)
    same = mask_root.resolve() == root.resolve()
    image_files = ImageIndex(root, [] if same else [mask_root]).files
    mask_files = image_files if same else ImageIndex(mask_root, [root]).files
    pairs, problems = pair_by_pattern(image_files, mask_files, patterns, same=same)
    if problems:
        listed = "; ".join(f"{counted(len(files), *what)} ({first_few(files)})" for what, files in problems.items())
        held = f"{len(image_files)} image files in {root}" + ("" if same else f" and {len(mask_files)} in {mask_root}")
        example = next((f for f in image_files if patterns.key(f) is not None), None)
        place = example and patterns.place(example)
        expected = f"; the mask of {example} would be {place}" if place else ""
        raise PairingError(
            f"{len(pairs)} pairs among {held}; {listed}{expected}. Correct --mask_pattern, add --image_pattern, or "
            "rename or remove files."
        )
    names = sample_names([image for image, _ in pairs])
    samples = [Sample(name, root / image, mask_root / mask) for name, (image, mask) in zip(names, pairs, strict=True)]
    return sorted(samples, key=lambda sample: sample.name)


def pair_by_pattern(
    image_files: Sequence[PurePosixPath], mask_files: Sequence[PurePosixPath], patterns: Patterns, *, same: bool
) -> tuple[list[tuple[PurePosixPath, PurePosixPath]], dict[tuple[str, str], list[PurePosixPath]]]:
    """Pairs, and everything that is in none by what is wrong with it (of one, of several); each file is in one place.

    Args:
        image_files: Below the root of the images.
        mask_files: Below that of the masks.
        patterns: How the masks' names follow.
        same: Whether the roots, and so the two lists, are the same.
    """
    by_place: dict[str | None, list[PurePosixPath]] = defaultdict(list)
    for file in mask_files:
        by_place[patterns.comparable(file)].append(file)
    found = {
        file: [mask for mask in by_place.get(patterns.place(file), ()) if not (same and mask == file)]
        for file in image_files
        if patterns.key(file) is not None
    }
    as_masks = {mask for masks in found.values() for mask in masks} if same else set()
    found = {file: masks for file, masks in found.items() if file not in as_masks}
    uses = Counter(mask for masks in found.values() for mask in masks)
    clear = {file: masks[0] for file, masks in found.items() if len(masks) == 1 and uses[masks[0]] == 1}
    unclear = {file: masks for file, masks in found.items() if masks and file not in clear}
    alone = [file for file, masks in found.items() if not masks]
    shared = {mask for masks in unclear.values() for mask in masks}
    taken = {*clear.values(), *shared}
    others = [file for file in image_files if file not in found and not (same and file in taken)]
    orphans = [file for file in mask_files if file not in taken] if not same else []
    if same:
        misplaced = [file for file in (*alone, *others) if patterns.fits_mask(file)]
        orphans, gone = misplaced, set(misplaced)
        alone, others = ([file for file in files if file not in gone] for files in (alone, others))
    problems = {
        ("image without a mask", "images without a mask"): alone,
        ("mask without an image", "masks without an image"): orphans,
        ("image that fits several times", "images and masks that fit several times"): [*unclear, *sorted(shared)],
        ("file that fits neither pattern", "files that fit neither pattern"): others,
    }
    return list(clear.items()), {what: files for what, files in problems.items() if files}


def _expression(pattern: str, **places: str) -> str:
    """A regular expression for a pattern, with one for what is in braces."""
    text = unicodedata.normalize("NFC", pattern)
    parts, braces = _BRACES.split(text), _BRACES.findall(text)
    names = [places[brace.strip("{}")] for brace in braces]
    return "".join(re.escape(part) + name for part, name in zip(parts, [*names, ""], strict=True))
