"""Stage `report`: the verdict, figures and the page."""

from __future__ import annotations

from mechinterp.answers.wording import UNSAFELY, Wording
from mechinterp.audit.tables.verdicts import verdict_table
from mechinterp.data.storage.publishing import publishing
from mechinterp.data.storage.saved_tables import SavedTables
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """`verdict.csv`, figures and `report.html`."""
    from mechinterp.report import write_report
    from mechinterp.report.plates import draw_all  # matplotlib takes its time

    tables, wording = SavedTables(run.folder), Wording.named(run.config.behaviour or UNSAFELY.name)
    run.write_table("verdict", verdict_table({name: tables[name] for name in tables if name != "verdict"}, wording))
    with publishing(run.folder, "report") as folder:
        write_report(run.folder, draw_all(run.folder, folder / "figures"), out=folder)
