"""How a result shows itself: in a notebook as a title, facts and short tables, everything escaped; else in one line.

Nothing here knows a result: each says itself which of its tables a reader wants first.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import pandas as pd

ROWS = 12
"""Rows of a table that are shown; the rest is counted."""


def shown(
    title: str, facts: Mapping[str, object] | None = None, *tables: pd.DataFrame, note: str = "", rows: int = ROWS
) -> str:
    """A fragment of HTML.

    Args:
        title: what it is, and of what.
        facts: short ones, by name; those that are empty are left out.
        tables: the most telling first; an index with a name is shown, any other not.
        note: plain text below the title.
        rows: of each table at most.
    """
    said = [f"{escape(name)} {escape(str(value))}" for name, value in (facts or {}).items() if value not in ("", None)]
    parts = [f"<b>{escape(title)}</b>{': ' if said else ''}{', '.join(said)}"]
    parts += [escape(line) for line in note.splitlines()]
    body = "".join(f"<p>{part}</p>" for part in parts)
    return f"<div>{body}{''.join(table_html(table, rows) for table in tables)}</div>"


def one_line(of: object, *facts: object) -> str:
    """What `repr` says of an object that holds more than a line does: what it is, and what is to be known of it.

    Args:
        of: the object.
        facts: short ones; those that are empty are left out.
    """
    said = ", ".join(" ".join(str(fact).split()) for fact in facts if fact not in ("", None))
    return f"<{type(of).__name__} {said}>"


def table_html(table: pd.DataFrame, rows: int = ROWS) -> str:
    """A table's first rows, numbers with four digits that count."""
    index = table.index.names != [None]
    with pd.option_context("display.max_colwidth", None):
        page = table.head(rows).to_html(
            index=index, index_names=index, border=0, na_rep="", float_format="{:.4g}".format, max_cols=None
        )
    left = len(table) - rows
    return page if left <= 0 else f"{page}<p>and {left} rows more</p>"
