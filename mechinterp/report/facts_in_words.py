"""What checkpoints make of facts, in a sentence each."""

from __future__ import annotations

import pandas as pd

from mechinterp.audit.tables.reading import counted

NAMES = {
    "success": "new answer",
    "truth": "answer before",
    "rephrase": "in other words",
    "portability": "portability",
    "locality": "locality",
    "said_target": "says it",
    "same_answer": "says the same",
}


def facts_in_words(summary: pd.DataFrame) -> list[str]:
    """A line for each checkpoint: shares with their intervals, in brackets how many facts have them.

    Args:
        summary: `facts_summary.csv`.
    """
    whole = summary[_empty(summary["kind"]) & _empty(summary["relation"])]
    said = []
    for method, rows in whole.groupby("method", sort=False):
        by_name = {str(row["quantity"]): row for row in rows.to_dict("records")}
        parts = [f"{name} {counted(by_name[key])}" for key, name in NAMES.items() if key in by_name]
        said.append(f"{method}: {', '.join(parts)}")
    return said


def _empty(column: pd.Series) -> pd.Series:
    """A table read back has no empty texts."""
    return column.isna() | (column == "")
