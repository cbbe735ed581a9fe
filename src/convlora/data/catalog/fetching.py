"""Download an archive whole or not at all, and recognise it the next time.

Nobody has published hashes of the archives, so the first download is trusted: its size and SHA-256 are recorded, and
every later one must be equal.
"""

from __future__ import annotations

import dataclasses
import datetime
import http.client
import itertools
import json
import time
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLError
from typing import IO, Any
from urllib.request import (
    BaseHandler,
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from convlora import __version__
from convlora.errors import DataError
from convlora.files import replacing, sha256, write_json

Progress = Callable[[int, int], None]
"""Called with what is done and what there is in all; 0 for an unknown total."""

TIMEOUT = 60.0  # seconds without a byte
ATTEMPTS = 5  # to go on after a broken connection
PAUSE = 2.0  # seconds before the first of them; doubled each time
MOST_BYTES = 200_000_000_000
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Record:
    """What an archive was when it was first seen.

    Attributes:
        source: Its address, or the file that was given instead.
        bytes: Its size.
        sha256: Of its bytes, in hexadecimal.
        recorded: When, in UTC.
    """

    source: str
    bytes: int
    sha256: str
    recorded: str

    @classmethod
    def of(cls, archive: Path, source: str) -> Record:
        """The record of a file."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds")
        return cls(source, archive.stat().st_size, sha256(archive), now)

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """What `write` wrote; None if there is no such file.

        Raises:
            DataError: It is damaged.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path} is not readable ({error}). Remove it to trust the next download anew.") from error


def https_only() -> OpenerDirector:
    """Opens https addresses, through the proxy that the environment names, and follows redirections to https alone."""
    opener = OpenerDirector()  # urllib's own would open http, ftp and file, too
    for handler in (
        ProxyHandler(),
        HTTPSHandler(),
        HTTPRedirectHandler(),
        HTTPDefaultErrorHandler(),
        HTTPErrorProcessor(),
        _Refuse(),
    ):
        opener.add_handler(handler)
    return opener


class _Refuse(BaseHandler):
    """Answers for every protocol that no other handler opens."""

    def unknown_open(self, request: Request) -> Any:
        raise urllib.error.URLError(f"{request.type} is not encrypted; only https is opened")


def download(url: str, path: Path, *, opener: OpenerDirector, progress: Progress) -> None:
    """Fetch a file; a connection that breaks is taken up again where it broke.

    Args:
        url: Of the file.
        path: Where it appears when it is whole.
        opener: `https_only()`, but for tests.
        progress: Called with bytes.

    Raises:
        DataError: The server refuses, cannot be reached, or breaks off again and again.
        OutputError: The disk is full or not writable.
    """
    with replacing(path) as temporary, temporary.open("wb") as stream:
        transfer = _Transfer(url, opener, stream, progress)
        for attempt in itertools.count(1):
            try:
                transfer.run()
                return
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, SSLError) as error:
                refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
                if refused or attempt == ATTEMPTS or not stream.tell():  # nothing came: the network is not there
                    raise DataError(f"{url} cannot be fetched: {_reason(error)}. {_BY_HAND}") from error
            time.sleep(PAUSE * 2 ** (attempt - 1))


_BY_HAND = "Try again later, or fetch the file in another way and give it as --archive FILE."


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} ({error.reason})"
    reason = getattr(error, "reason", error)
    return getattr(reason, "strerror", None) or str(reason) or type(error).__name__


class _Transfer:
    """One file on its way, over as many connections as it takes."""

    def __init__(self, url: str, opener: OpenerDirector, stream: IO[bytes], progress: Progress) -> None:
        self.url = url
        self.opener = opener
        self.stream = stream
        self.progress = progress
        self.version: str | None = None  # the server's tag of the file that was begun

    def run(self) -> None:
        """Fetch what is missing."""
        done = self.stream.tell()
        request = Request(self.url, headers={"User-Agent": f"convlora/{__version__}"})
        if done and self.version:
            request.add_header("Range", f"bytes={done}-")
            request.add_header("If-Range", self.version)  # a file that has changed comes whole
        with self.opener.open(request, timeout=TIMEOUT) as answer:
            if not self._goes_on(answer, done):
                done = 0
                self.stream.seek(0)
                self.stream.truncate()
            self.version = answer.headers.get("ETag")
            rest = answer.headers.get("Content-Length")
            total = done + int(rest) if rest and rest.isdecimal() else 0
            self._copy(answer, done, total)

    def _goes_on(self, answer: Any, done: int) -> bool:
        return answer.status == 206 and str(answer.headers.get("Content-Range", "")).startswith(f"bytes {done}-")

    def _copy(self, answer: Any, done: int, total: int) -> None:
        self.progress(done, total)
        while block := answer.read(_BLOCK):
            done += len(block)
            if max(done, total) > MOST_BYTES:
                raise DataError(f"{self.url}: more than {MOST_BYTES / 1e9:.0f} GB, so it is not the archive expected.")
            self.stream.write(block)
            self.progress(done, total)
        if done < total:  # read() of a part does not notice
            raise http.client.IncompleteRead(b"", total - done)
