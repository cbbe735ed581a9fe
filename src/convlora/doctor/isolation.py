"""Run a function in a fresh process, so that its peak of memory is its own and no crash is ours."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from convlora.errors import ConvloraError

STEPS = "convlora.doctor.steps"
# its server imports torch and transformers once (4 s); each process is a fork of it, with nothing computed yet
_CONTEXT = multiprocessing.get_context("forkserver")


class MemoryRefusedError(Exception):
    """The process needed more memory than there is."""


def isolated(function: str, *arguments: Any) -> Any:
    """Call a function of `convlora.doctor.steps` in a process of its own.

    Raises:
        MemoryRefusedError: There was not enough memory, or the system killed the process.
        ConvloraError: As the function raised it.
        RuntimeError: Of any other error in the process.
    """
    _CONTEXT.set_forkserver_preload([STEPS])
    receiver, sender = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_call, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        raise MemoryRefusedError(f"the process ended with exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _call(sender: Connection, function: str, arguments: tuple[Any, ...]) -> None:
    """In the process: send back the answer, or the error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends this process
    with contextlib.suppress(OSError):  # should memory run out, Linux ends this process and not the user's others
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    from convlora.doctor import steps

    answer: Any
    try:
        answer = getattr(steps, function)(*arguments)
    except ConvloraError as error:
        answer = error
    except Exception as error:
        out_of_memory = isinstance(error, MemoryError) or "memory" in str(error)
        answer = (MemoryRefusedError if out_of_memory else RuntimeError)(f"{type(error).__name__}: {error}")
    sender.send(answer)
