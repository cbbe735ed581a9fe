"""Cross-validation: tables that are the folds of one data set, taken together, so that every image is tested once."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convlora.comparison.plan import Cell, Group, Run
from convlora.comparison.records import Record
from convlora.training.settings import as_dict


def fold_sets(groups: Mapping[Group, Sequence[Cell]]) -> list[tuple[Group, list[list[Cell]]]]:
    """The groups of cells that differ in the fold alone and are all folds that there are.

    Args:
        groups: The cells of each table, in the same order of methods.

    Returns:
        For each set the group that stands for it, and for each method its cells, fold by fold.
    """
    alike: dict[str, dict[int, Group]] = defaultdict(dict)
    for group, cells in groups.items():
        if cells[0].settings.folds is not None:
            but_fold = [{**as_dict(cell.settings), "fold": None, "output": None} for cell in cells]
            alike[json.dumps([group.dataset, group.model, but_fold])][cells[0].settings.fold] = group
    found = []
    for parts in alike.values():
        folds = [parts[fold] for fold in sorted(parts)]
        first = groups[folds[0]]
        if len(folds) == first[0].settings.folds:
            names = ", ".join(group.subset for group in folds)
            together = dataclasses.replace(folds[0], subset=f"all {len(folds)} folds ({names})", joined=True)
            found.append((together, [list(cells) for cells in zip(*(groups[group] for group in folds), strict=True)]))
    return found


def join_runs(group: Group, folds: Sequence[Sequence[tuple[Run, Record]]]) -> list[tuple[Run, Record]]:
    """For each seed that all folds have, one run that stands for theirs, with the matrices of all their images.

    Args:
        group: Of the joint table.
        folds: The runs that went well of one method, with their records, fold by fold; each has at most one of a seed.
    """
    by_seed = [{run.seed: (run, record) for run, record in runs} for runs in folds]
    joined = []
    for seed in by_seed[0]:
        parts = [runs[seed] for runs in by_seed if seed in runs]
        if len(parts) == len(folds):
            run, record = parts[0]
            cell = dataclasses.replace(run.cell, group=group, folder=run.cell.folder.parent)
            joined.append((dataclasses.replace(run, cell=cell), _joined([record for _, record in parts], record)))
    return joined


def _joined(records: Sequence[Record], first: Record) -> Record:
    """One record for those of all folds; what a run takes is the mean of theirs."""
    means: dict[str, Any] = {
        name: float(np.mean([getattr(record, name) for record in records])) for name in ("seconds", "peak_memory")
    }
    return dataclasses.replace(
        first,
        images=[name for record in records for name in record.images],
        confusions=[matrix for record in records for matrix in record.confusions],
        scores={},  # they follow from the matrices
        validation=None,
        **means,
    )
