"""Stage `report`: figures and the page."""

from __future__ import annotations

from mechinterp.data.storage.publishing import publishing
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """Figures and `report.html`."""
    from mechinterp.report import write_report
    from mechinterp.report.plates import draw_all  # matplotlib takes its time

    with publishing(run.folder, "report") as folder:
        write_report(run.folder, draw_all(run.folder, folder / "figures"), out=folder)
