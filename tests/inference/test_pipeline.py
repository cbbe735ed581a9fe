import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from convlora.inference.pipeline import WriteBehind, read_ahead, thread_pool


@pytest.mark.parametrize("length", [1, 3, 50])
def test_items_come_in_order_whatever_the_readers_take(length):
    def read(i):
        time.sleep(0.002 * (i % 3))
        return i * i

    with thread_pool() as pool:
        got = [(item, future.result()) for item, future in read_ahead(pool, read, range(20), length)]
    assert got == [(i, i * i) for i in range(20)]


def test_no_more_items_than_allowed_are_started_before_they_are_taken():
    started = []
    with ThreadPoolExecutor(4) as pool:
        items = read_ahead(pool, started.append, range(20), 5)
        for taken in range(20):
            next(items)
            assert len(started) <= taken + 5


def test_jobs_run_beside_the_caller_and_are_heard_of_in_order():
    running, heard, slow = threading.Event(), [], threading.Event()
    done = iter(range(3))
    with thread_pool() as pool:
        writing = WriteBehind(pool, 3, lambda: heard.append(next(done)))
        writing.add(lambda: (running.set(), slow.wait(10)))
        assert running.wait(10)  # while `add` has returned
        slow.set()
        for _ in range(2):
            writing.add(lambda: None)
        writing.flush()
    assert heard == [0, 1, 2]


def test_adding_waits_while_the_queue_is_full():
    release, finished = threading.Event(), []
    with thread_pool() as pool:
        writing = WriteBehind(pool, 2, lambda: finished.append(1))
        for _ in range(2):
            writing.add(release.wait, 10)
        timer = threading.Timer(0.1, release.set)
        timer.start()
        writing.add(lambda: None)
        assert len(finished) >= 1
        writing.flush()
    assert len(finished) == 3


def test_an_error_of_a_job_is_raised_by_the_next_call():
    def fail():
        raise OSError("full")

    with thread_pool() as pool, pytest.raises(OSError, match="full"):
        writing = WriteBehind(pool, 10, lambda: None)
        writing.add(fail)
        writing.flush()


def test_when_the_block_fails_what_has_not_begun_is_dropped_and_the_rest_is_waited_for():
    with pytest.raises(ZeroDivisionError), thread_pool() as pool:
        jobs = [pool.submit(time.sleep, 0.05) for _ in range(50)]
        raise ZeroDivisionError
    assert any(job.cancelled() for job in jobs) and all(job.done() for job in jobs)
