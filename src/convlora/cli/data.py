"""`convlora data`: the sets of the paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING

from convlora.cli.display import new_bar, print_table
from convlora.data.catalog.sets import SETS
from convlora.data.catalog.settings import GetSettings
from convlora.errors import SettingsError
from convlora.settings import from_arguments

if TYPE_CHECKING:
    from tqdm import tqdm

    from convlora.data.catalog.get import Obtained, Progress

_HELP = """usage: convlora data get NAME [--flag value ...]
       convlora data list

Get a set of the Conv-LoRA paper: download its archive, verify it, lay it out.
`convlora data get --help` shows the flags.
"""


def run(arguments: Sequence[str]) -> None:
    """List the sets, or get one."""
    action = arguments[0] if arguments else ""
    if action in ("-h", "--help"):
        print(_HELP, end="")
    elif action == "list":
        _list()
    elif action == "get":
        _get(arguments[1:])
    else:
        raise SettingsError(f"convlora data {action}: give `get NAME` or `list`.")


def _list() -> None:
    rows = [["name", "what it is"], *([entry.name, entry.title] for entry in SETS.values())]
    for name, title in rows:
        print(f"{name:<12}{title}")
    print("\nThe images are not ours; SOURCE.md beside each set says whose, and on what terms.")


def _get(arguments: Sequence[str]) -> None:
    settings = from_arguments(
        GetSettings,
        arguments,
        prog="convlora data get",
        description="Download a set of the paper, verify it, and lay it out for training. What is there is kept.",
        positional=("name",),
    )
    from convlora.data.catalog.get import get_set

    with stages() as progress:
        data = get_set(settings, progress=progress)
    print_obtained(data)
    listing, name = quote(str(data.listing)), data.entry.name
    print(f"next: convlora train --preset {name} --images {listing} --output runs/{name}")


def print_obtained(data: Obtained) -> None:
    """Say what is there now, and how far it can be trusted."""
    print(f"{data.entry.title}: {data.folder}" + ("" if data.made else " (was there already)"))
    print_table([["part", "images"], *([name, f"{count:,}"] for name, count in data.layout.counts.items())])
    if data.trusted:
        print(
            f"archive: {data.record.bytes:,} bytes, SHA-256 {data.record.sha256}. Nobody has published its hash, so "
            "this one was trusted and recorded; another one will be refused from now on."
        )
    for note in data.layout.notes:
        print(f"note: {note}")
    print(f"whose images these are, and on what terms: {data.folder / 'SOURCE.md'}")


@contextmanager
def stages() -> Iterator[Progress]:
    """Bars for a function that reports (stage, done, total); bytes are shown as such."""
    bars: dict[str, tqdm] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            close()
            counted = stage in ("looking at masks", "scoring")
            unit = {"unit": "image"} if counted else {"unit": "B", "unit_scale": True, "unit_divisor": 1000}
            bars[stage] = new_bar(desc=stage, **unit)
        bars[stage].total = total or None
        bars[stage].update(done - bars[stage].n)
        if total and done >= total:
            close()

    def close() -> None:
        for bar in bars.values():
            bar.close()
        bars.clear()

    try:
        yield report
    finally:
        close()
