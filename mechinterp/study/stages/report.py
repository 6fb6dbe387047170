"""Stage `report`: figures and the page."""

from __future__ import annotations

from mechinterp.files import replacing
from mechinterp.reporting import Reporter
from mechinterp.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """Figures and `report.html`."""
    from mechinterp.plates import draw_all  # matplotlib takes its time
    from mechinterp.report import write_report

    with replacing(run.folder / "figures") as folder:
        drawn = draw_all(run.folder, folder)
        write_report(run.folder, drawn)
