"""A study as a self-contained HTML page: tables, diagrams, and pictures where the methods differ."""

from __future__ import annotations

import dataclasses
import datetime
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from convlora import __version__
from convlora.comparison import figures
from convlora.comparison.pictures import disagreements
from convlora.comparison.study import Study
from convlora.comparison.summary import Table
from convlora.comparison.table import cells, failures, head, heading, notes, unfinished
from convlora.data.labels.colours import as_hex
from convlora.errors import ConvloraError
from convlora.files import write_text


def write_page(path: Path, study: Study, tables: Sequence[Table]) -> None:
    """Write the page whole or not at all."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader

    loader = ChoiceLoader([PackageLoader("convlora", "comparison"), PackageLoader("convlora", "evaluation")])
    page = (
        Environment(loader=loader, autoescape=True)
        .get_template("page.html")
        .render(
            title=f"Comparison: {Path(study.settings.output).name}",
            version=__version__,
            date=datetime.date.today().isoformat(),
            unfinished=unfinished(tables),
            head=head(study.settings),
            notes=notes(study.settings),
            curves=_subset_curves(study.settings.metric, tables),
            tables=[_table(study, table) for table in tables],
            settings=yaml.safe_dump(dataclasses.asdict(study.settings), sort_keys=False, allow_unicode=True),
        )
    )
    write_text(path, page.encode("utf-8", "backslashreplace").decode())  # file names need not be valid Unicode


def _subset_curves(metric: str, tables: Sequence[Table]) -> list[tuple[str, str]]:
    """Titles and diagrams, one for each data set and model; none without subsets.

    Where the subsets are folds, all folds together are one.
    """
    by_place: dict[str, list[Table]] = defaultdict(list)
    for group, lines in tables:
        by_place[f"{group.dataset} · {group.model}"].append((group, lines))
    curves = []
    for title, parts in by_place.items():
        shown = [table for table in parts if table[0].joined] or parts
        if len(shown) > 1:
            curves.append((title, figures.subset_curves(shown, metric)))
    return curves


def _table(study: Study, table: Table) -> dict[str, Any]:
    group, lines = table
    settings = study.settings
    tuned = len(settings.learning_rates) > 1 and not group.joined
    return {
        "title": heading(table),
        "rows": [cells(line, settings) for line in lines],
        "failures": failures(lines),
        "differences": figures.difference_bars(lines, settings.reference, settings.metric)
        if settings.reference
        else "",
        "rates": figures.rate_curves(study, lines) if tuned else "",
        **({} if group.joined else _pictures(table)),
    }


def _pictures(table: Table) -> dict[str, Any]:
    """The rows of pictures and their legend; where the images are gone, why there are none."""
    try:
        rows, labels = disagreements(table[1])
    except ConvloraError as error:
        return {"pictures": [], "legend": [], "no_pictures": str(error)}
    names = labels.classes if labels is not None else ()
    legend = [(name, as_hex(labels.palette[i])) for i, name in enumerate(names) if i and labels is not None]
    return {"pictures": rows, "legend": legend, "no_pictures": ""}
