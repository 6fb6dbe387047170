"""The report of a run: one self-contained HTML page, made from the run's saved tables and manifest alone."""

from mechinterp.report.page import write_report

__all__ = ["write_report"]
