"""Stage `report`: figures and the page."""

from __future__ import annotations

from mechinterp.publishing import publishing
from mechinterp.reporting import Reporter
from mechinterp.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """Figures and `report.html`."""
    from mechinterp.plates import draw_all  # matplotlib takes its time
    from mechinterp.report import write_report

    with publishing(run.folder, "report") as folder:
        write_report(run.folder, draw_all(run.folder, folder / "figures"), out=folder)
