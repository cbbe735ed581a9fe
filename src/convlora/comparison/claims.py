"""Which process is at a run; without torch, because others look at it often."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from convlora.files import output_errors


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this run is ours; the claim ends with the process, however it ends.

    Not twice in one process: the end of the inner claim would be that of the outer one, too.

    Raises:
        OutputError: The folder cannot be written.
    """
    path = folder.with_name(f".{folder.name}.lock")
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as stream:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                yield False
                return
            yield True


def is_free(folder: Path) -> bool:
    """Whether no other process is at a run."""
    with claimed(folder) as free:
        return free
