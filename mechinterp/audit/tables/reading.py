"""Rows of a run's tables, by what stands in them, and the estimates in a row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from mechinterp.measures.intervals import Interval, with_ends

Tables = Mapping[str, pd.DataFrame]
"""By name; any may be missing."""


def rows(tables: Tables, name: str, **equal: object) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, if the run has it, whose columns equal the values given."""
    if name in tables and set(equal) <= set(tables[name]):
        for row in where(tables[name], **equal).to_dict("records"):
            yield {str(column): value for column, value in row.items()}


def where(table: pd.DataFrame, **equal: object) -> pd.DataFrame:
    """The rows whose columns have these values."""
    for column, value in equal.items():
        table = table[table[column] == value]
    return table


def as_float(value: object) -> float:
    """A number, or nan."""
    return float(value) if isinstance(value, int | float) else math.nan


def interval_of(row: Mapping[str, Any], name: str) -> Interval:
    """An estimate with its interval; nan where the row has none."""
    return Interval(*(as_float(row.get(column)) for column in with_ends(name)))


def counted(row: Mapping[Any, Any], name: str = "value") -> str:
    """A share with its interval as a sentence tells it, and in brackets of how many it is."""
    return f"{interval_of(row, name).percent} ({row['n']})"
