"""Get a set of the paper: fetch, verify, unpack, lay out; or find that it is there already."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.request import OpenerDirector
from zipfile import ZipFile

from convlora.data.catalog import fetching
from convlora.data.catalog.fetching import Record
from convlora.data.catalog.layout import LISTING_OF_ARCHIVE, RECORD, Layout, lay_out
from convlora.data.catalog.sets import SETS, PaperSet
from convlora.data.catalog.settings import LISTING, GetSettings
from convlora.data.catalog.unpacking import DEFAULT_ARCHIVE_LIMITS, ArchiveLimits, folder_of, opened_archive, unpack
from convlora.data.readers.listing import read_listing
from convlora.errors import DataError, OutputError
from convlora.files import output_errors, whole_folder

Progress = Callable[[str, int, int], None]
"""Called with the stage (downloading, unpacking, looking at masks), what is done of it, and all; 0 if unknown."""


@dataclass(frozen=True)
class Obtained:
    """A set that can be used.

    Attributes:
        entry: Which one.
        folder: Where.
        record: Of its archive.
        layout: What is in it.
        made: Whether it was not there before.
        trusted: Whether nothing was known of its archive, so that it was trusted.
    """

    entry: PaperSet
    folder: Path
    record: Record
    layout: Layout
    made: bool = False
    trusted: bool = False

    @property
    def listing(self) -> Path:
        """The CSV file for `convlora train --images`."""
        return self.folder / LISTING


def get_set(
    settings: GetSettings,
    *,
    progress: Progress = lambda stage, done, total: None,
    url: str | None = None,
    opener: OpenerDirector | None = None,
    limits: ArchiveLimits = DEFAULT_ARCHIVE_LIMITS,
) -> Obtained:
    """Bring a set's folder about; nothing is done for what is there and whole.

    Args:
        settings: Which, and where to.
        progress: See `Progress`.
        url: Of the archive, if it is not where the catalogue says.
        opener: Opens it; default https only.
        limits: Of what the archive unpacks to.

    Raises:
        SettingsError: The settings are wrong.
        DataError: The archive cannot be fetched, is not the one that is known, or does not hold what it should.
        OutputError: The folder is in use, holds other files or cannot be written.
    """
    entry = settings.validate()
    if not settings.folder.exists():
        _require_archive(settings, url or entry.url)
    with _locked(settings):
        known = Record.read(settings.record)
        if settings.folder.exists():
            return _present(entry, settings, known)
        with _archive(settings, str(url or entry.url), opener, progress) as archive:
            found = Record.of(archive, settings.archive or url or str(entry.url))
            _verify(settings, known, found)
            with whole_folder(settings.folder) as hidden:
                with opened_archive(archive, limits) as opened:
                    root = _root(entry, archive, opened)
                    unpack(opened, root, hidden, lambda done, total: progress("unpacking", done, total))
                layout = lay_out(entry, hidden, found, lambda done, total: progress("looking at masks", done, total))
                if known is None or known.sha256 != found.sha256:
                    found.write(settings.record)  # not before it has proved to be what it should
    trusted = known is None and settings.sha256 is None
    return Obtained(entry, settings.folder, found, layout, made=True, trusted=trusted)


def _require_archive(settings: GetSettings, url: str | None) -> None:
    if settings.archive is not None and not Path(settings.archive).is_file():
        raise DataError(f"--archive {settings.archive} is no file; give the zip archive of {settings.name}.")
    if settings.archive is None and url is None:
        raise DataError(f"{settings.name} cannot be downloaded by this program: {SETS[settings.name].manual}.")


@contextlib.contextmanager
def _locked(settings: GetSettings) -> Iterator[None]:
    """Keep a second process from making the same folder; the lock ends with this process."""
    path = settings.folder.with_name(f".{settings.name}.lock")
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as stream:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                raise OutputError(f"{settings.folder} is being made by another process. Wait for it.") from error
            yield


def _present(entry: PaperSet, settings: GetSettings, known: Record | None) -> Obtained:
    """The folder that is there, after a look at whether it is whole."""
    layout = Layout.read(settings.folder)
    if layout is None or known is None:
        missing = settings.record if layout else settings.folder / RECORD
        raise OutputError(
            f"{settings.folder} is there, but {missing} is not, so it was not made by this command. Choose another "
            "folder, or remove it."
        )
    if settings.sha256 and settings.sha256.lower() != known.sha256:
        raise DataError(
            f"{settings.folder} was made from an archive of SHA-256 {known.sha256}, not {settings.sha256}. Remove "
            f"it and {settings.record} to make it anew."
        )
    try:
        read_listing(settings.folder / LISTING)  # says which files are missing
    except DataError as error:
        raise DataError(f"{error} Or remove {settings.folder} to make it anew.") from error
    return Obtained(entry, settings.folder, known, layout)


@contextlib.contextmanager
def _archive(settings: GetSettings, url: str, opener: OpenerDirector | None, progress: Progress) -> Iterator[Path]:
    """The zip file: the one given, the one kept from before, or a new one, which is removed when it is laid out."""
    if settings.archive is not None:
        yield Path(settings.archive)
        return
    path = settings.folder.with_name(f".{settings.name}.zip")  # hidden: NAME.zip may be the user's own
    if not path.is_file():
        fetching.download(
            url,
            path,
            opener=opener or fetching.https_only(),
            progress=lambda done, total: progress("downloading", done, total),
        )
    try:
        yield path
    except DataError:  # of no use; but after a full disk it need not be fetched again
        _remove(settings, path)
        raise
    _remove(settings, path)


def _remove(settings: GetSettings, archive: Path) -> None:
    if not settings.keep_archive:
        archive.unlink(missing_ok=True)


def _verify(settings: GetSettings, known: Record | None, found: Record) -> None:
    """Refuse an archive that is not the one that is known, if one is."""
    wanted = settings.sha256.lower() if settings.sha256 else known.sha256 if known else found.sha256
    if found.sha256 == wanted:
        return
    by = "--sha256 says" if settings.sha256 else f"{settings.record} says of the first one"
    raise DataError(
        f"{found.source}: SHA-256 {found.sha256} ({found.bytes} bytes), but {by} {wanted}. It was changed, or damaged "
        "on its way; nothing was unpacked. If you know that it is right, give its hash as --sha256."
    )


def _root(entry: PaperSet, archive: Path, opened: ZipFile) -> PurePosixPath:
    """The folder of the data in the archive."""
    wanted = (LISTING_OF_ARCHIVE,) if entry.archive else ("train", "images")
    root = folder_of(opened, *wanted)
    if root is None:
        raise DataError(f"{archive}: holds no {'/'.join(wanted)}, so it is not the archive of {entry.name}.")
    return root
