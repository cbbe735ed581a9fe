"""`convlora COMMAND`: find the command, run it, and turn errors into one line and an exit code."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from convlora import __version__
from convlora.cli.printing import printable
from convlora.errors import ConvloraError, OutputError

COMMANDS = {
    "doctor": "say what this machine can train, and the command for it",
    "convert": "put MobileSAM's weights in place for --model mobile-sam",
    "check": "look at images and masks, and say what would be trained",
    "train": "fine-tune SAM on images and masks",
    "resume": "continue an interrupted run",
    "predict": "write masks for new images",
    "convert-masks": "write predicted masks in the format of an annotation tool",
    "evaluate": "score a run on labelled images",
    "analyze": "show what tuning did inside a run's model",
    "data": "get a set of the paper, ready to train on",
    "reproduce": "make the paper's rows for one of its sets again",
    "compare": "make the runs of a study, and the table of what they show",
    "demo": "train on the embedded sample data, and compare with a baseline",
}

EXIT_UNEXPECTED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_HELP = """usage: convlora COMMAND [arguments]

Conv-LoRA (ICLR 2024) fine-tuning of the Segment Anything Model.

commands:
{commands}

`convlora COMMAND --help` shows a command's settings. With --debug, errors show their traceback.
exit codes: 0 done · 1 unexpected error · 2 settings · 3 data · 4 weights · 5 not finite · 6 output · 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may hold what the terminal cannot show
    try:
        code = _main(list(sys.argv[1:] if arguments is None else arguments))
        if sys.stdout is not None:  # as it is after >&-
            sys.stdout.flush()  # here, where a closed pipe or a full disk can still be answered
        return code
    except OSError as error:
        _drop_output()
        # a closed pipe, as in `convlora --help | head -1`, is no error to speak of
        return EXIT_UNEXPECTED if isinstance(error, BrokenPipeError) else _report(error)


def _drop_output() -> None:
    """Nothing more can be printed, nor flushed at the end of the interpreter."""
    stream = sys.__stdout__
    if stream is not None and sys.stdout is stream:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _main(rest: list[str]) -> int:
    debug = "--debug" in rest
    rest = [argument for argument in rest if argument != "--debug"]
    if not rest or rest[0] in ("-h", "--help", "help"):
        lines = "\n".join(f"  {name:<15}{text}" for name, text in COMMANDS.items())
        print(_HELP.format(commands=lines))
        return 0 if rest else EXIT_USAGE
    if rest[0] == "--version":
        print(f"convlora {__version__}")
        return 0
    name = rest[0]
    if name not in COMMANDS:
        return _fail(f"unknown command {name!r}; it must be one of {', '.join(COMMANDS)}.", EXIT_USAGE)
    # OpenMP's threads wait by spinning: with one other busy core that makes training ten times slower. Shorter
    # spinning costs a tenth on an idle machine. Read once, when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if not debug:
        _quiet()
    try:
        importlib.import_module(f"convlora.cli.{name.replace('-', '_')}").run(rest[1:])
    except BrokenPipeError:
        raise
    except SystemExit as error:  # of --help
        return error.code if isinstance(error.code, int) else EXIT_UNEXPECTED
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        return _report(error)
    return 0


def _report(error: BaseException) -> int:
    if isinstance(error, ConvloraError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return _fail("what is printed cannot be written: the disk is full. Free some space.", OutputError.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return _fail(str(error) or "interrupted.", EXIT_INTERRUPTED)
    return _fail(f"{type(error).__name__}: {error} (unexpected; --debug shows where)", EXIT_UNEXPECTED)


def _fail(message: str, code: int) -> int:
    print(f"convlora: {printable(' '.join(message.split()))}", file=sys.stderr)
    return code


def _quiet() -> None:
    """Keep the libraries' own progress bars and warnings out of the way of ours."""
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


if __name__ == "__main__":
    sys.exit(main())
