"""Tables made on a page, shown as results show theirs: whole texts, and numbers with the digits that count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mechinterp.data.showing import table_html


@dataclass(frozen=True, eq=False)
class Shown:
    """A table for reading.

    Attributes:
        table: the numbers themselves.
        rows: of it that are shown.
    """

    table: pd.DataFrame
    rows: int

    def __repr__(self) -> str:
        return self.table.head(self.rows).to_string(float_format="{:.4g}".format)

    def _repr_html_(self) -> str:
        return table_html(self.table, self.rows)


def show(
    table: pd.DataFrame | Sequence[Mapping[str, Any]] | Mapping[str, Any],
    columns: Sequence[str] | None = None,
    *,
    index: str | list[str] | None = None,
    rows: int = 60,
) -> Shown:
    """Show a table: whole texts, numbers with four digits that count.

    Args:
        table: a table, its rows, or its columns by name.
        columns: those that are shown, in this order; all if not given.
        index: what each row is called by.
        rows: at most.

    Returns:
        What a notebook shows; the table itself is `.table`.

    Example:
        >>> mi.show(found.verdict, ["method", "where", "gone", "missing"])
    """
    frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame(table)
    frame = frame if columns is None else frame[list(columns)]
    return Shown(frame if index is None else frame.set_index(index), rows)
