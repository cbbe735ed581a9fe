"""Images that an annotation file names are found in the folders where they are now, and nowhere else."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from convlora.data.pixels.decoding import IMAGE_SUFFIXES
from convlora.data.samples import first_few
from convlora.errors import PairingError


class ImageIndex:
    """The image files in a folder and all folders in it; hidden ones are left out.

    A name in an annotation file is never opened as a path: it is compared with the files that are there, so it cannot
    lead out of the folder.

    Args:
        root: The folder.
        without: Folders below it that hold other images, such as masks.

    Raises:
        PairingError: The folder cannot be read, or has no images.
    """

    def __init__(self, root: Path, without: Collection[Path] = ()) -> None:
        self.root = root
        self.files: list[PurePosixPath] = sorted(_image_files(root, without))
        """Relative to the folder."""
        if not self.files:
            raise PairingError(
                f"images: {root} has no image files ({' '.join(IMAGE_SUFFIXES)}), nor have the folders in it."
            )
        self._by_name: dict[str, list[PurePosixPath]] = defaultdict(list)
        for file in self.files:
            self._by_name[_normal(file.name)].append(file)

    def find_all(self, names: Sequence[str], near: Sequence[str]) -> list[PurePosixPath | None]:
        """The file of each name, relative to the folder; None where there is none.

        The whole name must end a file's path, or a file's whole path must end the name. Failing this, as with the
        path of another machine, the last part alone decides, if only one file and only one of the names has it.

        Args:
            names: Paths as written, with slashes of either kind.
            near: For each a word, such as val2017: of several files, the one in a folder of that name counts.

        Raises:
            PairingError: Several files could be meant.
        """
        parts = [_parts(name) for name in names]
        last = Counter(part[-1] for part in parts if part)
        return [self._find(part, hint, last) for part, hint in zip(parts, near, strict=True)]

    def require_one_each(
        self, names: Sequence[str], places: Sequence[PurePosixPath | None], source: object, *, absent: str, twice: str
    ) -> list[PurePosixPath]:
        """What `find_all` found, if that is one file for each name.

        Args:
            names: As they were given.
            places: What was found.
            source: Begins messages: the file that holds the names.
            absent: Ends the message on images without a file: what to do.
            twice: Ends that on files of several images, likewise.

        Raises:
            PairingError: There is none for a name, or the same for two.
        """
        missing = [name for name, place in zip(names, places, strict=True) if place is None]
        if missing:
            raise PairingError(
                f"{source}: {len(missing)} of {len(names)} images are not in {self.root} or the folders in it: "
                f"{first_few(missing)}. {absent}"
            )
        found = [place for place in places if place is not None]
        several = [place for place, count in Counter(found).items() if count > 1]
        if several:
            raise PairingError(
                f"{source}: {len(several)} images are there more than once: {first_few(several)}. {twice}"
            )
        return found

    def unused(self, used: Collection[PurePosixPath | None]) -> list[PurePosixPath]:
        """Files that are not among these."""
        taken = set(used)
        return [file for file in self.files if file not in taken]

    def _find(self, parts: tuple[str, ...], near: str, last: Counter[str]) -> PurePosixPath | None:
        files = self._by_name.get(parts[-1], []) if parts else []
        whole = [file for file in files if _ends_alike(parts, tuple(_normal(part) for part in file.parts))]
        if not whole:
            return files[0] if len(files) == 1 and last[parts[-1]] == 1 else None
        best = [file for file in whole if near and near in file.parts[:-1]] or whole
        longest = max(min(len(file.parts), len(parts)) for file in best)
        best = [file for file in best if min(len(file.parts), len(parts)) == longest]
        if len(best) > 1:
            raise PairingError(
                f"{'/'.join(parts)}: {len(best)} files in {self.root} have this name: {first_few(best)}. Write their "
                "folders into the annotation file, or keep one."
            )
        return best[0]


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, without hidden ones, sorted; none if it is no folder, or may not be read."""
    try:
        return sorted(entry for entry in folder.iterdir() if entry.name[0] != "." and entry.is_dir())
    except OSError:
        return []


def _ends_alike(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    length = min(len(one), len(other))
    return one[-length:] == other[-length:]


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _parts(name: str) -> tuple[str, ...]:
    parts = _normal(name).replace("\\", "/").split("/")
    return tuple(part for part in parts if part not in ("", ".", "..") and not part.endswith(":"))


def _image_files(root: Path, without: Collection[Path]) -> list[PurePosixPath]:
    def refuse(error: OSError) -> None:
        raise PairingError(f"images: {error.filename} cannot be read ({error.strerror}).") from error

    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise PairingError(f"images: {root} {what}; give the folder with the images.")
    skipped, seen = {os.path.realpath(folder) for folder in without}, set()
    files = []
    for folder, folders, names in os.walk(root, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        if real in seen or real in skipped:  # links may lead in circles
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = PurePosixPath(Path(folder).relative_to(root).as_posix())
        files += [inner / n for n in names if n[0] != "." and PurePosixPath(n).suffix.lower() in IMAGE_SUFFIXES]
    return files
