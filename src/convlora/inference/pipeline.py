"""Reading and writing beside the computation, with a bounded number of items in flight."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = min(4, os.cpu_count() or 1)
"""Of each pool; Pillow decodes and encodes without the interpreter's lock."""


def queue_length(batch_size: int) -> int:
    """Images that may wait on either side of the computation: two batches, and at least one for each thread."""
    return max(2 * batch_size, THREADS)


@contextlib.contextmanager
def thread_pool() -> Iterator[ThreadPoolExecutor]:
    """A pool that, however the block ends, drops what has not begun and waits for the rest."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_ahead(
    pool: ThreadPoolExecutor, read: Callable[[T], R], items: Iterable[T], length: int
) -> Iterator[tuple[T, Future[R]]]:
    """Each item with the future of what is read for it, in order; at most `length` are started and not yet taken."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(read, item)))
        if len(waiting) == length:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


class WriteBehind:
    """Runs jobs in a pool and hears of them in order; `add` waits while `length` are not finished.

    Args:
        pool: Where the jobs run.
        length: Jobs that are running or waiting, at most.
        finished: Called once for each job that is done, in the order of adding, by the thread that adds.
    """

    def __init__(self, pool: ThreadPoolExecutor, length: int, finished: Callable[[], None]) -> None:
        self.pool = pool
        self.length = length
        self.finished = finished
        self.jobs: deque[Future[None]] = deque()

    def add(self, job: Callable[..., None], *arguments: object) -> None:
        """Start a job; an error of an earlier one is raised here, or by `flush`."""
        self._collect(self.length - 1)
        self.jobs.append(self.pool.submit(job, *arguments))

    def flush(self) -> None:
        """Wait for all jobs."""
        self._collect(0)

    def _collect(self, allowed: int) -> None:
        while self.jobs and (len(self.jobs) > allowed or self.jobs[0].done()):
            self.jobs.popleft().result()
            self.finished()
