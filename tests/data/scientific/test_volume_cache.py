import threading
import time

import numpy as np
import pytest

from convlora.data.scientific.volume_cache import VolumeCache


def test_a_volume_is_made_once_also_if_several_threads_ask_at_once():
    cache, made, got = VolumeCache(), [], []

    def make():
        made.append(1)
        time.sleep(0.05)
        return np.zeros(10)

    threads = [threading.Thread(target=lambda: got.append(cache.get("a", make))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and all(array is got[0] for array in got) and not got[0].flags.writeable


def test_what_was_not_used_for_longest_is_forgotten_and_the_last_one_stays():
    cache, made = VolumeCache(most_bytes=2000), []

    def ask(key, size=1000):
        return cache.get(key, lambda: made.append(key) or np.zeros(size, dtype=np.uint8))

    for key in ("a", "b", "a", "c", "a", "b"):
        ask(key)
    assert made == ["a", "b", "c", "b"]
    ask("large", 50_000)
    ask("large", 50_000)
    assert made[-1] == "large" and made.count("large") == 1
    ask("a")
    assert made[-1] == "a"


def test_a_failure_is_not_kept():
    cache = VolumeCache()
    with pytest.raises(ValueError, match="broken"):
        cache.get("a", lambda: (_ for _ in ()).throw(ValueError("broken")))
    assert cache.get("a", lambda: np.ones(1))[0] == 1
