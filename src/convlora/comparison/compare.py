"""Make the runs of a study, and write what they show."""

from __future__ import annotations

from pathlib import Path

from convlora.comparison.data import check_data_sets
from convlora.comparison.engines import engine_of
from convlora.comparison.schedule import Report, make_runs
from convlora.comparison.settings import CompareSettings
from convlora.comparison.study import Study
from convlora.comparison.summary import Table, results_json, summarize_study
from convlora.comparison.table import markdown
from convlora.files import write_json, write_text

RESULTS = "results.json"
TABLE = "table.md"
PAGE = "index.html"


def compare(settings: CompareSettings, report: Report) -> list[Table]:
    """Make the missing runs of a study, write results.json, table.md and index.html, and return the tables.

    Raises:
        SettingsError: Before any run: of the study or of a run.
        DataError: Before any run: a data set cannot be used.
        OutputError: A run was made with other settings; or the disk is full.
        KeyboardInterrupt: On Ctrl-C, after the runs under way were saved and the tables written.
    """
    study = Study(settings)
    study.open()
    if settings.report_only:
        return write_results(study)
    check_data_sets([*study.missing(), *study.to_retry()], tuned=len(settings.learning_rates) > 1)
    study.forget_failures()
    try:
        make_runs(study, engine_of(settings), report)
    except KeyboardInterrupt:
        write_results(study)
        raise
    return write_results(study)


def write_results(study: Study) -> list[Table]:
    """Write what the runs show that have ended."""
    tables = summarize_study(study)
    output = Path(study.settings.output)
    write_json(output / RESULTS, results_json(study, tables))
    write_text(output / TABLE, markdown(study.settings, tables))
    from convlora.comparison.page import write_page  # it imports torch, which the runs' processes do for themselves

    write_page(output / PAGE, study, tables)
    return tables
